"""The packaged tokenizer gives the ids of all-MiniLM-L6-v2's own tokenizer.json, recorded for 320 varied texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sage_onnx.tokens import bert_uncased, load_tokenizer

RECORDED = json.loads((Path(__file__).parent / "minilm_tokens.json").read_text(encoding="utf-8"))


def test_ids_are_those_of_the_original_tokenizer() -> None:
    tokenizer = bert_uncased()
    different = [text for text, ids in RECORDED["texts"] if tokenizer.encode(text).ids != ids]
    assert len(RECORDED["texts"]) == 320
    assert different == []


def test_pairs_carry_type_ids() -> None:
    encoding = bert_uncased().encode("two parts", "make a pair.")
    assert [encoding.ids, encoding.type_ids] == RECORDED["pair"]


@pytest.mark.parametrize("text", ["Hello, wörld! 東京", "e\u0301 combining", "emoji 👩‍🚀 end"])
def test_offsets_count_characters_of_the_text(text: str) -> None:
    encoding = bert_uncased().encode(text, add_special_tokens=False)
    assert text.split()[-1].endswith(text[slice(*encoding.offsets[-1])])
    assert all(0 <= start < end <= len(text) for start, end in encoding.offsets)


def test_a_tokenizer_file_loses_its_padding_and_truncation(tmp_path: Path) -> None:
    padded = bert_uncased()
    padded.enable_padding(length=128)
    padded.enable_truncation(16)
    padded.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path / "tokenizer.json")
    assert len(read.encode("one two").ids) == 4
    assert len(read.encode("word " * 50).ids) == 52
