"""What the engines of this machine hold of it: a file that its engine host alone writes, and its ledgers read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sage_core.common.paths import Paths
from sage_core.common.records import Needs, Node, Record
from sage_core.platform.processes import start_ticks


class Holdings(Record):
    """The engines of one engine host, each with its model."""

    #: The host's process, and when it started: what a process held that is gone is free.
    pid: int
    ticks: int
    engines: tuple[tuple[str, Needs], ...]


def holdings_path(paths: Paths) -> Path:
    """Where the engine host of a runtime folder says what its engines hold."""
    return paths.socket.with_suffix(".held")


def tell(path: Path, engines: Sequence[tuple[str, Needs]]) -> None:
    """Say what the engines of this process hold from here on."""
    pid = os.getpid()
    held = Holdings(pid=pid, ticks=start_ticks(pid) or 0, engines=tuple(engines))
    tmp = path.with_suffix(f".{pid}")
    tmp.write_bytes(msgspec.json.encode(held))
    tmp.replace(path)


def with_engines(node: Node, path: Path) -> Node:
    """The node with its engines counted as used, and their models as loaded."""
    try:
        held = msgspec.json.decode(path.read_bytes(), type=Holdings)
    except (OSError, msgspec.DecodeError):
        return node
    if start_ticks(held.pid) != held.ticks:
        return node
    needs = [each for _, each in held.engines]
    return msgspec.structs.replace(
        node,
        used_cpu=node.used_cpu + sum(each.cpu for each in needs),
        used_memory=node.used_memory + sum(each.memory for each in needs),
        used_gpu=node.used_gpu + sum(each.gpu for each in needs),
        models=tuple(sorted({*node.models, *(model for model, _ in held.engines)})),
    )
