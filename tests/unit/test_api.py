"""`sage_core.run`: workflows from Python, with real stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sage_core import Keep, UsageError, Workflow, hookimpl, operator, run
from sage_core.builtins import default_host

SCRIPT = """
from sage_core import Workflow, operator, run


@operator("twice", returns="n")
def twice(n: int) -> int:
    return 2 * n


workflow = Workflow("numbers")
doubled = workflow.source(twice, n=workflow.param("n", "int"))
workflow.output("n", doubled.n)
report = run(workflow, {"n": 21})
print(report.status, report.outputs["n"])
try:
    run(workflow, {"n": 1}, workers=2)
except Exception as error:
    print(type(error).__name__, error)
"""


@operator("tests.words", returns="word")
def words(text: str) -> list[str]:
    return text.split()


@operator("tests.long")
def is_long(word: list[str], *, least: int = 2) -> Keep:
    return Keep(len(word) >= least)


@pytest.fixture
def workflow() -> Workflow:
    described = Workflow("words")
    kept = described.source(words, text=described.param("text", "string")).filter(is_long)
    described.output("words", kept.word)
    return described


def test_a_workflow_of_local_operators_runs(workflow: Workflow, sage_home: Path) -> None:
    report = run(workflow, {"text": "a lease expires"})

    assert (report.status, report.outputs) == ("succeeded", {"words": ["a", "lease", "expires"]})
    assert run(workflow, {"text": "a lease expires"}).steps["words"].partitions.reused == 1


FILE = """
sage = 1
name = "words"
params.text = { type = "string" }
steps.split = { use = "tests.words", in = { text = "params.text" } }
outputs = { words = "split.word" }
"""


@hookimpl
def sage_operators() -> dict[str, str]:
    return {"tests.words": f"{__name__}:words"}


def test_a_file_runs_with_the_plugins_it_is_given(sage_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.toml"
    file.write_text(FILE)

    report = run(file, {"text": "a b"}, host=default_host({"tests": sys.modules[__name__]}))

    assert report.outputs == {"words": ["a", "b"]}


def test_a_missing_parameter_is_raised_before_anything_runs(workflow: Workflow, sage_home: Path) -> None:
    with pytest.raises(UsageError, match="text"):
        run(workflow)


def test_functions_of_a_script_run_inline_only(tmp_path: Path, sage_home: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=True)

    assert done.stdout.splitlines()[0] == "succeeded 42"
    assert "UsageError" in done.stdout
    assert "move it to a module" in done.stdout
