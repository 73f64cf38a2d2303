"""What engines hold of a node, as its ledgers read it from a file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from pathlib import Path

import msgspec

import sage_core.testing.engines as fake
from sage_core import ModelSpec, Needs, Node, builtins
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.control_plane.frames import socket_path
from sage_core.kernel.scheduler.holdings import Holdings, holdings_path, tell, with_engines
from sage_core.kernel.scheduler.ledger import fits, needs_text

NODE = Node(name="n", cpu=4, memory=8, gpu=2)
ENGINES = [("minilm", Needs(cpu=1, memory=3)), ("big", Needs(gpu=1))]


def test_engines_take_from_the_node_and_their_models_are_loaded(tmp_path: Path) -> None:
    path = holdings_path(Paths(project=tmp_path, data=tmp_path, runtime=tmp_path))
    assert with_engines(NODE, path) == NODE
    tell(path, ENGINES)
    node = with_engines(NODE, path)
    assert (node.used_cpu, node.used_memory, node.used_gpu, node.models) == (1, 3, 1, ("big", "minilm"))
    assert list(tmp_path.iterdir()) == [path]


def test_the_ledger_counts_jobs_and_engines_together_at_each_claim(tmp_path: Path) -> None:
    path, gpu = tmp_path / "held", needs_text(Needs(gpu=1))
    able = fits(NODE, path)
    assert able([gpu], {gpu: 1}) == [gpu]
    tell(path, ENGINES)
    assert able([gpu], {gpu: 1}) == []
    tell(path, [])
    assert able([gpu], {gpu: 1}) == [gpu]


def test_a_host_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "held"
    tell(path, ENGINES)
    held = msgspec.json.decode(path.read_bytes(), type=Holdings)
    # Another process has its id by now.
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(held, ticks=held.ticks - 1)))
    assert with_engines(NODE, path) == NODE
    path.write_bytes(b"{")
    assert with_engines(NODE, path) == NODE


def test_the_ledger_hears_of_an_engine_while_it_is_open(tmp_path: Path) -> None:
    paths = Paths(project=tmp_path / "project", data=tmp_path / "data", runtime=tmp_path / "run")
    needs = {"gpu": 1, "memory": "1B"}
    models = {"m": ModelSpec(name="m", backend="fake", needs=needs), "n": ModelSpec(name="n", backend="fake")}
    made = UnifiedInferenceClient.create(
        models, paths=paths, caller=Caller(worker="w"), host=Host({"fake": fake}, builtins=builtins)
    )

    async def use() -> list[Node]:
        seen = []
        async with made as opened:
            for model in ("m", "n"):
                await opened.embed(model, ["a"])
                seen.append(with_engines(NODE, holdings_path(paths)))
        return seen

    first, second = asyncio.run(use())
    assert (first.used_gpu, first.used_memory, first.models) == (1, 1, ("m",))
    assert (second.used_gpu, second.models) == (1, ("m", "n"))
    # It leaves shortly after its last client, and gives up its lock with its last act.
    with contextlib.suppress(FileNotFoundError), socket_path(paths).with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert with_engines(NODE, holdings_path(paths)) == NODE
