from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import UsageError
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.prepared import Prepared, decode_prepared, secret_values
from sage_core.testing.flows import Flows

TREE: dict[str, Any] = {
    "params": {"by": {"type": "json", "default": 1}, "token": {"type": "string", "secret": True}},
    "steps": {
        "one": {"use": "f.scale", "in": {"text": {"value": "x"}}, "with": {"by": "${params.by}"}},
        "held": {
            "use": "f.held",
            "in": {"text": "one.value"},
            "with": {"prefix": "a ${secret.FIRST} b", "log": "${params.token}"},
        },
    },
}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", "s3cr3t")
    monkeypatch.setenv("SAGE_PARAM_TOKEN", "s3cr3t-longer")


def prepared(flows: Flows, run_id: str = "r", **params: object) -> Prepared:
    return launch.bind(flows.graph(TREE), params, flows.host, flows.project, run_id=run_id)


def test_it_comes_back_from_the_store_and_holds_no_secret(flows: Flows) -> None:
    made = prepared(flows)
    assert decode_prepared(made.encode()) == made
    assert b"s3cr3t" not in made.encode()
    # Longest first: one secret may be the start of another.
    assert secret_values(made, {"FIRST": "s3cr3t", "SAGE_PARAM_TOKEN": "s3cr3t-longer"}) == ("s3cr3t-longer", "s3cr3t")
    assert secret_values(made, {}) == ()


def test_digests_follow_options_and_wiring_but_not_runs(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(flows, "r1")
    monkeypatch.setenv("FIRST", "two")
    assert prepared(flows, "r2").digests == first.digests
    other = prepared(flows, by=2)
    assert other.digests["one"] != first.digests["one"]
    assert other.digests["held"] == first.digests["held"]
    stage = first.stages["one"]
    assert first.stage_digest(stage, "r1") == first.stage_digest(stage, "r2")


def test_a_value_of_the_wrong_type_is_refused_before_anything_runs(flows: Flows) -> None:
    with pytest.raises(UsageError, match="step 'one', option 'by': "):
        prepared(flows, by=["x"])
