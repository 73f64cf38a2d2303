"""Tests for the plugin as the host sees it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sage_llm

from sage_core import Host

#: Operator → its ports, then its options that have no default: others call these.
INTERFACE = {
    "llm.embed": (("text",), ("model",)),
    "llm.generate": (("prompt",), ("model",)),
    "llm.rerank": (("query", "documents"), ("model",)),
    "llm.extract": (("text",), ("model", "schema")),
}


def test_every_operator_resolves() -> None:
    host = Host({"llm": sage_llm})
    assert host.check() == []
    assert sorted(host.operators) == sorted(INTERFACE)


@pytest.mark.parametrize("name", INTERFACE)
def test_ports_and_required_options(name: str) -> None:
    target: Any = Host({"llm": sage_llm}).operators[name]
    function: Callable[..., object] = target
    parameters = inspect.signature(function).parameters.values()
    ports = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    required = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    assert tuple(ports) == INTERFACE[name][0]
    assert tuple(one for one in required if one != "ctx") == INTERFACE[name][1]


def test_checking_a_workflow_imports_no_library() -> None:
    script = (
        "import sys, sage_llm; from sage_core import Host; host = Host({'llm': sage_llm}); assert not host.check();"
        "print([name for name in ('numpy', 'jsonschema', 'referencing') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
