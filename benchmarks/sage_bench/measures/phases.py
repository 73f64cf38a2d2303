"""Where the time of a one-question run goes until its model begins to load, and what starting processes costs."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sage_bench.home import Done, Heard, Home
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import Embeds, ModelSpec, SageError

#: Phases of a run, each until something is heard for the first time, in this order.
PHASES = (
    ("interpreter", "start"),
    ("imports of the command line", "import sage_core.kernel.runtime.launch"),
    ("imports of the runtime", "import sage_core.builtins"),
    ("plugins", "exec sage_rag/files.py"),
    ("operators, reading, checking and planning", "connect"),
    ("store, reuse, first jobs", "exec sage_onnx/engine.py"),
)
WORDS = ("worker", "fence", "lease", "store", "graph", "grain", "vector", "passage", "index", "engine", "queue")
#: The module that loads a model starts with importing numpy and onnxruntime, so this is before both.
LOAD = "exec sage_onnx/engine.py"


class Phases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks another question each time of an index that is there, in one process and then with a worker."""

    documents: int = 20
    aim_ms: float = 200.0

    def measure(self, bench: Bench) -> Measured:
        """Build the index once, then ask."""
        home = Home(bench.work / "phases")
        docs = write_documents(home.folder / "docs", self.documents, bench.seed)
        home.workflow("ask", "--inline", docs=docs, question="warm up")
        phases: dict[str, list[float]] = {name: [] for name, _ in PHASES}
        until, whole = [], []
        crew: dict[str, list[float]] = {}
        for turn in range(bench.repeat):
            base = home.run([sys.executable, "-c", "pass"]).seconds * 1000
            done = home.workflow("ask", "--inline", probe=True, docs=docs, question=f"what does part {turn} hold?")
            require_reuse(done)
            main = process(done, "run")
            for name, ms in split(done.started, main).items():
                phases[name].append(ms)
            until.append((_at(main, LOAD) - done.started) / 1e6 - base)
            whole.append(done.seconds * 1000 - base)
            asked = f"who starts a worker, turn {turn}?"
            for name, ms in spawned(home.workflow("ask", "--workers=1", probe=True, docs=docs, question=asked)).items():
                crew.setdefault(name, []).append(ms)
        loads = [asyncio.run(load_model()) for _ in range(bench.repeat)]
        return Measured(
            figures=(
                _ms("until the model load begins, above python", until, self.aim_ms),
                *(_ms(f"phase: {name}", values) for name, values in phases.items()),
                _ms("whole inline run, above python", whole),
                *(_ms(f"with one worker: {name}", values) for name, values in crew.items()),
                _ms("model minilm: open", [opened for opened, _ in loads]),
                _ms("model minilm: first embedding", [first for _, first in loads]),
            ),
            facts={"documents": self.documents},
        )


def split(started: int, heard: Heard) -> dict[str, float]:
    """Milliseconds of each phase of the command's own process."""
    found, before = {}, started
    for name, until in PHASES:
        at = _at(heard, until)
        found[name] = (at - before) / 1e6
        before = at
    return found


def spawned(done: Done) -> dict[str, float]:
    """What it took to have a worker and an engine host, from the moments they were asked for."""
    main, worker = process(done, "run"), process(done, "sage_core.kernel.runtime.worker")
    host = process(done, "sage_core.kernel.control_plane.host")
    asked = _at(main, f"spawn {sys.executable} -m sage_core.kernel.runtime.worker")
    wanted = next(
        at for heard in done.heard for name, at in heard.stamps if "spawn" in name and "control_plane.host" in name
    )
    return {
        "until the worker is asked for": (asked - done.started) / 1e6,
        "worker until it has the store": (_at(worker, "connect") - asked) / 1e6,
        "engine host until the model load begins": (_at(host, LOAD) - wanted) / 1e6,
        "whole run": done.seconds * 1000,
    }


def process(done: Done, word: str) -> Heard:
    """The process whose command line has the word."""
    found = [heard for heard in done.heard if word in heard.argv]
    if len(found) != 1:
        raise SageError(
            f"expected one process with {word!r} in its command, heard of {[h.argv[:6] for h in done.heard]}"
        )
    return found[0]


def require_reuse(done: Done) -> None:
    """Raise unless the run found every passage embedded and the index built."""
    steps: Mapping[str, Mapping[str, Mapping[str, int]]] = done.report["steps"]
    ran = [name for name in ("parse", "chunk", "embed", "index") if steps[name]["partitions"]["run"]]
    if ran:
        raise SageError(f"the run was to reuse everything, but ran {', '.join(ran)}")


async def load_model() -> tuple[float, float]:
    """Milliseconds to open the model in this process, and to embed a first text; imports count once."""
    from sage_onnx.backend import OnnxBackend  # noqa: PLC0415 - the other suites run without this plugin

    backend = OnnxBackend()
    begun = time.perf_counter()
    async with backend.open(ModelSpec(name="minilm", backend="onnx")) as engine:
        opened = time.perf_counter()
        assert isinstance(engine, Embeds)
        await engine.embed(["a first question"])
        return (opened - begun) * 1000, (time.perf_counter() - opened) * 1000


def write_documents(folder: Path, count: int, seed: int) -> Path:
    """Short Markdown files of made-up sentences."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        sentences = (" ".join(draw.choices(WORDS, k=9)).capitalize() + "." for _ in range(12))
        (folder / f"part-{number:03}.md").write_text(f"# Part {number}\n\n{' '.join(sentences)}\n", encoding="utf-8")
    return folder


def _at(heard: Heard, name: str) -> int:
    at = heard.first(name)
    if at is None:
        raise SageError(
            f"{' '.join(heard.argv[:4])} ended without {name!r}; heard {[stamp for stamp, _ in heard.stamps]}"
        )
    return at


def _ms(name: str, values: Sequence[float], aim: float | None = None) -> Figure:
    return Figure(name=name, unit="ms", values=tuple(round(value, 2) for value in values), better="lower", aim=aim)
