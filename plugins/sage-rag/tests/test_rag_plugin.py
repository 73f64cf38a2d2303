"""Tests for the plugin as the host sees it: entries resolve, signatures read, nothing heavy is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sage_rag
from sage_rag.evaluate import Judged, Scores, evaluate
from sage_rag.parse import Parse
from sage_rag.prompt import prompt
from sage_rag.records import Document, Passage, SourceFile

from sage_core import Dataset, Host
from sage_core.testing import Example, OperatorContract

#: Operator → its ports, then its options that have no default: others call these.
INTERFACE = {
    "rag.files": ((), ("path",)),
    "rag.parse": (("file",), ()),
    "rag.chunk": (("text",), ()),
    "rag.retrieve": (("vector", "query", "index"), ()),
    "rag.highlight": (("question", "passages"), ()),
    "rag.rerank": (("query", "passages"), ("model",)),
    "rag.prompt": (("question", "passages"), ()),
    "rag.evaluate": (("rows",), ()),
}


def called(target: Any) -> Callable[..., object]:
    return target.__call__ if isinstance(target, type) else target


def test_every_operator_resolves() -> None:
    host = Host({"rag": sage_rag})
    assert host.check() == []
    assert sorted(host.operators) == sorted([*INTERFACE, "rag.index"])


@pytest.mark.parametrize("name", INTERFACE)
def test_ports_and_required_options(name: str) -> None:
    parameters = inspect.signature(called(Host({"rag": sage_rag}).operators[name])).parameters.values()
    ports = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"]
    required = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    assert tuple(ports) == INTERFACE[name][0]
    assert tuple(one for one in required if one != "ctx") == INTERFACE[name][1]


class TestParseContract(OperatorContract):
    operator = Parse
    examples = (
        Example(
            inputs={"file": SourceFile(path=str(Path(__file__).parent / "lease.md"), digest="d")},
            result=Document(text="# Leases\n\nA lease ends.\n", title="Leases"),
        ),
    )


class TestPromptContract(OperatorContract):
    operator = prompt
    examples = (
        Example(
            inputs={
                "question": "Why?",
                "passages": [Passage(path="a.md", start=0, end=2, text="So")],
                "template": "{n}: {question} {passages}",
            },
            result="1: Why? [1] a.md\nSo",
        ),
    )


class TestEvaluateContract(OperatorContract):
    operator = evaluate
    examples = (
        Example(
            inputs={"rows": Dataset([Judged(answer="The cat", gold=["cat"])]), "k": 3},
            result=Scores(questions=1, ndcg=None, recall=None, mrr=None, em=1.0, f1=1.0),
        ),
    )


def test_checking_a_workflow_imports_no_library() -> None:
    script = (
        "import sys, sage_rag; from sage_core import Host; host = Host({'rag': sage_rag}); assert not host.check();"
        "print([name for name in ('numpy', 'bm25s', 'selectolax', 'pypdfium2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
