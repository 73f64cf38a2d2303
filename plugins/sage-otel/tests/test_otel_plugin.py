"""The plugin as the host sees it, and as processes pay for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sage_otel

from sage_core.testing import JobObserverContract, PluginContract, install_wheel

OPERATORS = """
from sage_core import hookimpl, operator

@operator("p.upper", returns="text")
def upper(text: str) -> str:
    return text.upper()

@hookimpl
def sage_operators():
    return {"p.upper": "pieces:upper"}
"""
WORKFLOW = """
sage = 1
name = "w"

[steps.first]
use = "p.upper"
in = { text = { value = "two words" } }

[steps.second]
use = "p.upper"
in = { text = "first.text" }
"""


class TestPlugin(PluginContract):
    plugin = sage_otel
    name = "otel"


class TestObserver(JobObserverContract):
    plugin = sage_otel


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_the_environment_decides(environ: dict[str, str], names: list[str]) -> None:
    assert sage_otel.exporters(environ) == names


class Flow:
    """A workflow of two steps, run by `sage` processes that have this plugin and one with its operator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        install_wheel(folder / "site", "pieces", {"pieces.py": OPERATORS}, entry_points={"pieces": "pieces"})
        (folder / "w.toml").write_text(WORKFLOW)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SAGE_", "OTEL_"))}
        sage = {"SAGE_HOME": str(self.folder / "home"), "PYTHONPATH": str(self.folder / "site")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**inherited, **sage, **environ},
            capture_output=True,
            text=True,
            check=True,
        )


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


RUN = """
import sys
from sage_core.cli.main import run
assert run(["run", "w.toml"]) == 0
import sage_otel
print("imported:", sorted(name for name in sys.modules if name.startswith(("opentelemetry", "sage_otel."))))
"""


def test_without_a_request_for_traces_nothing_is_imported(flow: Flow) -> None:
    assert flow.run("-c", RUN).stdout.endswith("imported: []\n")


def documents(text: str) -> list[dict[str, Any]]:
    """The console exporter's JSON objects in what a process printed among other lines."""
    found, decoder, place = [], json.JSONDecoder(), text.find("{\n")
    while place >= 0:
        value, end = decoder.raw_decode(text, place)
        found.append(value)
        place = text.find("{\n", end)
    return found


def test_spans_of_a_driver_and_of_its_workers_make_one_tree(flow: Flow) -> None:
    done = flow.run("-m", "sage_core.cli", "run", "w.toml", "--workers", "1", OTEL_TRACES_EXPORTER="console")
    (root,) = documents(done.stdout)
    assert (root["name"], root["parent_id"]) == ("run w", None)
    below = documents((flow.folder / "home" / "project" / "logs" / "workers.log").read_text())
    jobs = [span for span in below if span["name"].startswith("job ")]
    steps = [span for span in below if span["name"].startswith("step ")]
    assert {span["parent_id"] for span in jobs} == {root["context"]["span_id"]}
    assert {span["context"]["trace_id"] for span in below} == {root["context"]["trace_id"]}
    assert {span["name"] for span in steps} == {"step first", "step second"}
    assert {span["parent_id"] for span in steps} <= {span["context"]["span_id"] for span in jobs}
    assert {span["attributes"]["sage.outcome"] for span in jobs} == {"done"}


def test_an_exporter_that_is_missing_is_named_and_the_run_goes_on(flow: Flow) -> None:
    done = flow.run("-m", "sage_core.cli", "run", "w.toml", OTEL_TRACES_EXPORTER="zipkin")
    assert done.stderr.count("traces_not_exported exporter=zipkin problem=pip install sage-otel[otlp]") == 1


CHAT = """
sage = 1
name = "c"
[models.m]
backend = "fake"
[steps.reply]
use = "p.say"
in = { text = { value = "two words" } }
with = { model = "m" }
"""
SAY = """
from sage_core import Context, hookimpl, operator

@operator("p.say", returns="text", models=("model",))
async def say(text: str, *, model: str, ctx: Context) -> str:
    return "".join([token.text async for token in ctx.client.generate(model, [{"role": "user", "content": text}])])

@hookimpl
def sage_operators():
    return {"p.say": "saying:say"}
"""


def test_a_model_call_has_a_span_below_its_run_and_is_counted(flow: Flow) -> None:
    points = {"saying": "saying", "fake": "sage_core.testing.engines"}
    install_wheel(flow.folder / "site", "saying", {"saying.py": SAY}, entry_points=points)
    (flow.folder / "w.toml").write_text(CHAT)
    environ = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    done = flow.run("-m", "sage_core.cli", "run", "w.toml", **environ)
    log = flow.folder / "home" / "project" / "logs" / "engine-host.log"
    # Whichever process has the control plane makes them.
    told = documents(done.stdout) + (documents(log.read_text()) if log.exists() else [])
    (root,) = [each for each in told if each.get("name") == "run c"]
    (call,) = [each for each in told if each.get("name") == "chat m"]
    assert call["context"]["trace_id"] == root["context"]["trace_id"]
    assert (call["parent_id"], call["kind"]) == (root["context"]["span_id"], "SpanKind.CLIENT")
    assert call["attributes"]["gen_ai.usage.output_tokens"] == 2
    assert call["attributes"]["sage.step"] == "reply"
    (figures,) = [each for each in told if "resource_metrics" in each]
    names = {metric["name"] for metric in figures["resource_metrics"][0]["scope_metrics"][0]["metrics"]}
    assert {"gen_ai.client.token.usage", "gen_ai.server.request.duration"} <= names


def test_decisions_are_observed_only_where_somebody_wants_them(flow: Flow) -> None:
    look = "import sage_otel; print(hasattr(sage_otel, 'sage_on_request_decided'))"
    assert flow.run("-c", look).stdout == "False\n"
    assert flow.run("-c", look, OTEL_METRICS_EXPORTER="console").stdout == "True\n"
    assert flow.run("-c", look, OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:4318").stdout == "True\n"
