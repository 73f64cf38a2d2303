"""Errors are kept by pickling, and say what, where and the way out."""

from __future__ import annotations

import pickle

import pytest

from sage_core.common.errors import (
    ConfigError,
    CorruptArtifact,
    DuplicateName,
    Interrupted,
    InvalidRequest,
    InvalidWorkflow,
    ModelError,
    OperatorError,
    PluginError,
    PortTaken,
    RequestRejected,
    RunFailed,
    SageError,
    StaleAttempt,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
    UnknownName,
    UsageError,
    suggest,
)

TEXTS = [
    (ConfigError("f", "wrong", "mend it"), "f: wrong\n  help: mend it", 2),
    (ConfigError("f", "wrong"), "f: wrong", 2),
    (
        UnknownName("step", "emb", ["embed", "chunk"], "Hint."),
        "No step is named 'emb'. Did you mean 'embed'? Known: embed, chunk. Hint.",
        2,
    ),
    (UnknownName("step", "emb", []), "No step is named 'emb'. No step is known.", 2),
    (
        DuplicateName("operator", "a.b", "one", "two"),
        "The operator 'a.b' is offered by both 'one' and 'two'. Uninstall one of them.",
        1,
    ),
    (PluginError("p", "is broken", "mend it"), "plugin 'p': is broken\n  help: mend it", 1),
    (InvalidWorkflow(["w.toml:1:1: bad"]), "w.toml:1:1: bad\n\n1 error", 2),
    (InvalidWorkflow(["a", "b"]), "a\n\nb\n\n2 errors", 2),
    (UsageError("no such file", "name one"), "no such file\n  help: name one", 2),
    (StoreError("sqlite:///x", "is locked"), "store sqlite:///x: is locked", 1),
    (StoreUnavailable("u", "is busy", "try again"), "store u: is busy\n  help: try again", 1),
    (StoreTooNew("u", "is of SAGE 9", "upgrade"), "store u: is of SAGE 9\n  help: upgrade", 1),
    (StaleAttempt("u", 3, 7), "job 3: fence 7 is stale; another attempt owns the job", 1),
    (CorruptArtifact("a/b", "is missing"), "artifact a/b: is missing", 1),
    (OperatorError("embed", "raised", "row-1", "x"), "step 'embed' (row row-1): raised\n  help: x", 1),
    (ModelError("minilm", "is missing"), "model 'minilm': is missing", 1),
    (InvalidRequest("chat", "no such role", "write user"), "model 'chat': no such role\n  help: write user", 1),
    (InvalidRequest("chat", "too long", code="context_length_exceeded"), "model 'chat': too long", 1),
    (RequestRejected("full", 1.25), "request rejected: full; retry after 1.2 s", 1),
    (RequestRejected("full"), "request rejected: full", 1),
    (
        PortTaken("gateway", 80, "nginx"),
        "port 80 (gateway) is taken by nginx\n"
        "  help: stop it, or set [ports] gateway = N in sage.toml or SAGE_PORT_GATEWAY=N",
        1,
    ),
    (
        RunFailed("r1", "step x failed"),
        "run r1 failed: step x failed\n  help: mend the cause, then: sage runs resume r1",
        1,
    ),
    (Interrupted("r1"), "interrupted; finished work is kept\n  help: sage runs resume r1", 130),
]


@pytest.mark.parametrize(("error", "text", "exit_code"), TEXTS, ids=lambda value: type(value).__name__)
def test_what_where_and_the_way_out(error: SageError, text: str, exit_code: int) -> None:
    assert str(error) == text
    assert error.exit_code == exit_code
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), text)


def test_whose_fault_a_models_error_is_travels_with_it() -> None:
    long = InvalidRequest("chat", "too long", code="context_length_exceeded")
    copy = pickle.loads(pickle.dumps(long))
    assert isinstance(long, ModelError)
    assert type(copy) is InvalidRequest
    assert (copy.code, InvalidRequest("chat", "no such role").code) == ("context_length_exceeded", "invalid_request")


def test_close_names_are_suggested_and_far_ones_not() -> None:
    assert suggest("priorityy", ["priority", "fifo"]) == " Did you mean 'priority'?"
    assert suggest("zzz", ["priority", "fifo"]) == ""
