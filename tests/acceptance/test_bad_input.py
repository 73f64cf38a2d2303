"""Bad documents, missing models and full disks: a clear error, nothing lost, and a re-run that continues."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import SAGE, Sage, partitions
from tests.acceptance.test_durability import INDEX


@pytest.fixture
def mixed(sage: Sage) -> Path:
    """A folder with two good documents and one of each bad kind."""
    (sage.cwd / "index.toml").write_text(INDEX)
    docs = sage.cwd / "docs"
    docs.mkdir()
    (docs / "a-good.txt").write_text("A lease is what a worker holds on a job.\n")
    (docs / "b-empty.txt").write_text("")
    (docs / "c-binary.txt").write_bytes(bytes(range(256)) * 8)
    (docs / "d-latin1.txt").write_bytes("caf\xe9 au lait, d\xe9j\xe0 vu\n".encode("latin-1") * 20)
    (docs / "e-gone.txt").symlink_to(docs / "nowhere.txt")
    (docs / "f-huge.txt").write_text("word " * 5_000_000)
    (docs / "z-good.txt").write_text("A fence is a number that only grows.\n")
    return docs


BAD = ("b-empty.txt", "c-binary.txt", "d-latin1.txt", "e-gone.txt", "f-huge.txt")


def test_bad_documents_are_skipped_by_path_and_reported_again_by_a_reuse(sage: Sage, mixed: Path) -> None:
    first = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")
    second = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")

    for report in (first, second):
        assert report["status"] == "partial"
        assert report["steps"]["parse"]["failed"] == len(BAD)
        assert report["steps"]["embed"]["rows_out"] == 2
        messages = {error["row"]: error["message"] for error in report["errors"]}
        for name in BAD:
            assert sum(f"docs/{name}" in message for message in messages.values()) == 1, messages
    total, reused, ran = partitions(second, "parse")
    assert (reused, ran) == (total, 0)
    assert second["errors"] == first["errors"]


def test_a_bad_document_is_fatal_when_the_workflow_does_not_skip(sage: Sage, mixed: Path) -> None:
    (sage.cwd / "strict.toml").write_text(INDEX.replace('on_error = "skip"\n', ""))

    report = sage.json("run", "strict.toml", "-p", "docs=docs", "--inline", code=1)

    assert report["status"] == "failed"
    assert "docs/b-empty.txt" in report["error"]
    assert 'on_error = "skip"' in report["error"]
    for name in BAD:
        (mixed / name).unlink()
    assert sage.json("run", "strict.toml", "-p", "docs=docs", "--inline")["status"] == "succeeded"


def test_an_empty_folder_still_makes_an_index(sage: Sage) -> None:
    (sage.cwd / "index.toml").write_text(INDEX)
    (sage.cwd / "docs").mkdir()

    report = sage.json("run", "index.toml", "-p", "docs=docs")

    assert report["status"] == "succeeded"
    assert report["steps"]["files"]["rows_out"] == 0
    assert report["outputs"]["index"]["digest"]


def test_a_missing_folder_names_the_path(sage: Sage) -> None:
    (sage.cwd / "index.toml").write_text(INDEX)

    report = sage.json("run", "index.toml", "-p", "docs=nowhere", code=1)

    assert "nowhere" in report["error"]


def test_a_missing_model_says_how_to_get_it(sage: Sage) -> None:
    text = INDEX.replace('backend = "onnx"', 'backend = "onnx"\nsource = "weights/e5"')
    (sage.cwd / "index.toml").write_text(text)
    (sage.cwd / "docs").mkdir()

    refused = sage("run", "index.toml", "-p", "docs=docs", code=1)

    assert "minilm" in refused.stderr
    assert "weights/e5" in refused.stderr
    assert "sage models add" in refused.stderr


def test_a_missing_parameter_lists_what_is_declared(sage: Sage) -> None:
    (sage.cwd / "index.toml").write_text(INDEX)

    refused = sage("run", "index.toml", code=2)

    assert "docs" in refused.stderr
    assert "--param" in refused.stderr


def test_an_unknown_run_is_refused_with_where_it_was_looked_for(sage: Sage) -> None:
    refused = sage("runs", "resume", "nothing-like-it", code=2)

    assert "No run has the id 'nothing-like-it': there are no runs in" in refused.stderr
    assert "change to its folder" in refused.stderr


FULL = """
mount -t tmpfs -o size=900k tmpfs "$SAGE_HOME"
"$SAGE" run index.toml -p docs=docs --inline --json > first.json 2> first.err
echo $? > first.code
mount -o remount,size=200m "$SAGE_HOME"
"$SAGE" run index.toml -p docs=docs --inline --json > second.json 2> second.err
echo $? > second.code
"""


def test_a_full_disk_is_named_and_a_run_with_room_completes(sage: Sage) -> None:
    (sage.cwd / "index.toml").write_text(INDEX)
    docs = sage.cwd / "docs"
    docs.mkdir()
    for number in range(300):
        (docs / f"d{number:03}.txt").write_text(f"Document {number} " + "speaks at length of many things. " * 20)
    sage.home.mkdir()

    # A mount namespace of our own gives a file system that is really full, without being root.
    script = ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL]
    subprocess.run(script, cwd=sage.cwd, env={**sage.environ, "SAGE": str(SAGE)}, check=True, timeout=120)

    code = int((sage.cwd / "first.code").read_text())
    said = (sage.cwd / "first.err").read_text() + (sage.cwd / "first.json").read_text()
    assert code == 1, said
    assert "full" in said
    assert "defect" not in said
    assert (sage.cwd / "second.code").read_text().strip() == "0", (sage.cwd / "second.err").read_text()
    assert json.loads((sage.cwd / "second.json").read_text())["status"] == "succeeded"


def test_a_secret_reaches_the_operator_and_nothing_that_is_kept(sage: Sage) -> None:
    text = INDEX.replace('use = "rag.chunk"', 'use = "rag.chunk"\nretry = { max = 0 }').replace(
        'with = { model = "minilm" }', 'with = { model = "minilm", prefix = "${secret.SAGE_TEST_TOKEN} " }'
    )
    (sage.cwd / "index.toml").write_text(text)
    docs = sage.cwd / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("A lease is what a worker holds on a job.\n")
    secret = "s3cr3t-" + os.urandom(8).hex()
    sage.environ["SAGE_TEST_TOKEN"] = secret

    done = sage("run", "index.toml", "-p", "docs=docs", "--workers", "1", "--json")

    assert secret not in done.stdout + done.stderr
    kept = [path for path in sage.home.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    del sage.environ["SAGE_TEST_TOKEN"]
    (docs / "b.txt").write_text("Another document.\n")
    missing = sage.json("run", "index.toml", "-p", "docs=docs", code=1)
    assert "SAGE_TEST_TOKEN" in missing["error"]
