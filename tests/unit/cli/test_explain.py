"""Tests of sage_core.cli.explain: the life of a request, from both decision logs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sage_core.common.records import Place
from sage_core.kernel.control_plane.decisions import DecisionLog
from sage_core.kernel.control_plane.events import Decided
from tests.unit.cli.conftest import Cli
from tests.unit.kernel.control_plane.test_decisions import line

CHAT = Decided(
    request="chat-1", kind="generate", model="m", lane="l", tenant="acme", service_class="interactive", run="", step="",
    worker="", rows=1, tokens=150, tokens_in=110, tokens_out=64, counted_in=100, counted_out=50, cached=32,
    deadline=2_000_000_000, tpot=50_000_000, wait=250_000_000, total=1_450_000_000, engine="m#2", batch=7,
    predicted=1.1, actual=1.2, predicted_ttft=0.2, ttft=0.3, cost=0.4, outcome="done", attempts=1,
    candidates=(Place(engine="m#2", running=1, load=0.5, itl=0.021), Place(engine="m#1", running=3, load=1.5)),
    scores=(0.9, 0.25), open=5, policy="hybrid", why="earliest deadline",
)  # fmt: skip


@pytest.fixture
def log(cli: Cli) -> Path:
    folder = cli.home / "project" / "logs"
    logs = DecisionLog(folder, rotate=1_600)
    logs.write([CHAT])
    logs.write([line(1), line(12)])
    logs.write([msgspec.structs.replace(line(12), batch=13, outcome="failed", reason="it broke")])
    logs.close()
    assert (folder / "decisions.1.jsonl").exists()
    return folder


def test_the_life_of_a_stream_is_drawn(cli: Cli, log: Path) -> None:
    said = cli("explain", "request", "chat")
    assert said.code == 0
    text = [" ".join(each.split()) for each in said.out.splitlines()]
    assert text[:3] == [
        "request chat-1: done",
        "generate by model 'm', tenant acme, class interactive",
        "asked for: deadline 2.00s, between tokens 50.0ms",
    ]
    assert [each.split("Z ")[1] for each in text if "Z +" in each] == [
        "+0.0ms arrived",
        "+250.0ms sent to m#2, dispatch 7",
        "+550.0ms first token",
        "+1.45s done",
    ]
    assert "after 1 failed attempts" in text
    assert text[text.index("what estimated actual") :][1:7] == [
        "tokens in 110 100",
        "tokens out 64 50",
        "cached tokens 32",
        "first token 200.0ms 300.0ms",
        "in the engine 1.10s 1.20s",
        "charged 400.0ms",
    ]
    assert "hybrid chose among 5 places: earliest deadline" in text
    assert text[-2:] == ["* m#2 0.900 1 500.0ms 21.0ms 1.0", "m#1 0.250 3 1.50s 1.0"]


def test_every_part_of_an_embed_request_is_told(cli: Cli, log: Path) -> None:
    found = cli("explain", "request", "r12", "--json").json
    assert found["request"] == "r12"
    assert [each["batch"] for each in found["decisions"]] == [12, 13]
    said = cli("explain", "request", "r12").out
    assert said.startswith("request r12: failed: it broke\n")
    assert "  2 parts, each in a batch\n" in said


def test_an_id_must_name_one_request(cli: Cli, log: Path) -> None:
    said = cli("explain", "request", "r")
    assert (said.code, said.err) == (2, "Error: 2 requests begin with 'r'\n  help: such as r1, r12\n")
    assert cli("explain", "request", "r1").out.startswith("request r1: done\n")
    said = cli("explain", "request", "gone")
    assert said.code == 2
    assert said.err.startswith(f"Error: no request 'gone' is in the decision logs of {cli.home}/project\n  help: ")
