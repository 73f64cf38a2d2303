"""What engines hold of a node, as its ledgers read it from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sage_core import Needs, Node
from sage_core.common.paths import Paths
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
