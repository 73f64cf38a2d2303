"""Tests for `rag.files`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from sage_rag.files import files
from sage_rag.records import DocumentError

from sage_core import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        file = folder / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def listed(path: Path | str, ctx: Any, **options: Any) -> list[str]:
    return [file.path for file in files(path=str(path), ctx=ctx, **options)]


def test_a_folder_is_listed_recursively_in_order_without_hidden_files(here: Path, ctx: Any) -> None:
    write(here, docs__b_dot_md="b", docs__a__z_dot_txt="z", docs__a_dot_md="a", docs___dot_secret="s")
    (here / "docs" / ".git").mkdir()
    (here / "docs" / ".git" / "config").write_text("x")
    assert listed(here / "docs", ctx) == ["docs/a/z.txt", "docs/a.md", "docs/b.md"]
    assert "docs/.secret" in listed(here / "docs", ctx, hidden=True)
    assert "docs/.git/config" in listed(here / "docs", ctx, hidden=True)


def test_the_pattern_is_held_against_the_path_below_the_folder(here: Path, ctx: Any) -> None:
    write(here, docs__a_dot_md="a", docs__b_dot_txt="b", docs__old__c_dot_md="c")
    assert listed(here / "docs", ctx, pattern="*.md") == ["docs/a.md", "docs/old/c.md"]
    assert listed(here / "docs", ctx, pattern="old/*") == ["docs/old/c.md"]


def test_paths_outside_the_current_folder_stay_whole(tmp_path: Path, ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, docs__a_dot_md="a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert listed(tmp_path / "docs", ctx) == [str(tmp_path / "docs" / "a.md")]
    assert listed("../docs", ctx) == [str(tmp_path / "docs" / "a.md")]


def test_one_file_and_a_glob(here: Path, ctx: Any) -> None:
    write(here, docs__a_dot_md="a", docs__b_dot_md="b", docs__c_dot_txt="c", docs__d__e_dot_md="e")
    assert listed(here / "docs" / "a.md", ctx) == ["docs/a.md"]
    assert listed("docs/*.md", ctx) == ["docs/a.md", "docs/b.md"]
    assert listed("docs/**/*.md", ctx) == ["docs/a.md", "docs/b.md", "docs/d/e.md"]


def test_the_digest_is_the_contents(here: Path, ctx: Any) -> None:
    write(here, docs__a_dot_md="same", docs__b_dot_md="same", docs__c_dot_md="other")
    a, b, c = (file.digest for file in files(path="docs", ctx=ctx))
    assert a == b == hashlib.sha256(b"same").hexdigest()
    assert c != a


def test_a_file_that_cannot_be_read_is_listed_with_the_others(here: Path, ctx: Any) -> None:
    write(here, docs__a_dot_md="a")
    os.symlink(here / "nowhere", here / "docs" / "b.md")
    found = list(files(path="docs", ctx=ctx))
    assert [file.path for file in found] == ["docs/a.md", "docs/b.md"]
    assert found[0].digest == hashlib.sha256(b"a").hexdigest()
    assert found[1].digest.startswith("unreadable:")


def test_a_pipe_is_no_document(here: Path, ctx: Any) -> None:
    write(here, docs__a_dot_md="a")
    os.mkfifo(here / "docs" / "pipe")
    assert listed("docs", ctx) == ["docs/a.md"]


def test_each_line_of_a_jsonl_file_is_a_row(here: Path, ctx: Any) -> None:
    (here / "corpus.jsonl").write_text('{"_id": "x7", "text": "one"}\n\n{"id": 3, "text": "two"}\n{"text": "three"}\n')
    found = list(files(path="corpus.jsonl", ctx=ctx))
    assert [file.path for file in found] == ["corpus.jsonl#x7", "corpus.jsonl#3", "corpus.jsonl#4"]
    assert found[0].digest == hashlib.sha256(b'{"_id": "x7", "text": "one"}').hexdigest()
    assert len({file.digest for file in found}) == 3


def test_a_jsonl_file_inside_a_folder_is_one_row(here: Path, ctx: Any) -> None:
    write(here, docs__log_dot_jsonl='{"text": "one"}\n{"text": "two"}\n')
    assert listed("docs", ctx) == ["docs/log.jsonl"]


def test_a_broken_jsonl_line_is_named(here: Path, ctx: Any) -> None:
    (here / "corpus.jsonl").write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(DocumentError, match=r"corpus\.jsonl, line 2: is not a document"):
        list(files(path="corpus.jsonl", ctx=ctx))
    (here / "corpus.jsonl").write_text('{"id": 1, "text": "one"}\n{"id": "1", "text": "two"}\n')
    with pytest.raises(DocumentError, match=r"corpus\.jsonl: lines 1 and 2 are both named '1'"):
        list(files(path="corpus.jsonl", ctx=ctx))


def test_a_path_that_does_not_exist_says_what_to_give(here: Path, ctx: Any) -> None:
    with pytest.raises(UsageError) as caught:
        list(files(path="dosc", ctx=ctx))
    assert str(caught.value) == "dosc does not exist\n  help: give a folder, a file, or a glob such as 'docs/**/*.md'"


def test_an_empty_folder_warns(here: Path, ctx: Any) -> None:
    (here / "docs").mkdir()
    assert listed("docs", ctx) == []
    assert ctx.warnings == ["docs: no file matches '*'"]
