"""What fits on a node beside what it holds; the store keeps the needs of jobs as one canonical text each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sage_core.common.records import Needs, Node
from sage_core.kernel.scheduler.holdings import with_engines
from sage_core.platform.store import Fits

#: Cores: sums of fractions are not exact.
_SLACK = 1e-9


def needs_of(tables: Iterable[Mapping[str, Any]]) -> Needs:
    """What works that run one after another in one job need: the most of each resource, and all labels."""
    each = [msgspec.convert(table, Needs) for table in tables]
    return Needs(
        cpu=max((needs.cpu for needs in each), default=0.0),
        memory=max((needs.memory for needs in each), default=0),
        gpu=max((needs.gpu for needs in each), default=0),
        gpu_memory=max((needs.gpu_memory for needs in each), default=0),
        labels=tuple(sorted({label for needs in each for label in needs.labels})),
    )


def needs_text(needs: Needs) -> str:
    """The one text of equal needs; empty where nothing is needed."""
    said = msgspec.structs.asdict(msgspec.structs.replace(needs, labels=tuple(sorted(set(needs.labels)))))
    told = {name: value for name, value in said.items() if value}
    return msgspec.json.encode(told, order="sorted").decode() if told else ""


def needs_from(text: str) -> Needs:
    """Undo `needs_text`."""
    return msgspec.json.decode(text, type=Needs) if text else Needs()


def with_jobs(node: Node, running: Mapping[str, int]) -> Node:
    """The node with the needs of its running jobs (text → how many) counted as used."""
    held = [(needs_from(text), count) for text, count in running.items()]
    return msgspec.structs.replace(
        node,
        used_cpu=node.used_cpu + sum(needs.cpu * count for needs, count in held),
        used_memory=node.used_memory + sum(needs.memory * count for needs, count in held),
        used_gpu=node.used_gpu + sum(needs.gpu * count for needs, count in held),
    )


def lacks(node: Node, needs: Needs) -> tuple[str, ...]:
    """What the node would not have for these needs even if nothing ran on it, as words for people."""
    words = []
    if needs.gpu > node.gpu:
        words.append(f"gpu = {needs.gpu} (it has {node.gpu or 'none'})")
    if needs.gpu_memory > node.gpu_memory:
        has = f"it has {node.gpu_memory / 2**30:.3g}" if node.gpu_memory else "[cluster] says none"
        words.append(f"gpu_memory = {needs.gpu_memory / 2**30:.3g} GiB ({has})")
    if needs.cpu > node.cpu + _SLACK:
        words.append(f"cpu = {needs.cpu:g} (it has {node.cpu:g})")
    if needs.memory > node.memory:
        words.append(f"memory = {needs.memory / 2**30:.3g} GiB (it has {node.memory / 2**30:.3g})")
    words += [f"label {label!r}" for label in needs.labels if label not in node.labels]
    return tuple(words)


def has_room(node: Node, needs: Needs) -> bool:
    """Whether the node can take these needs beside what is used of it."""
    return (
        not lacks(node, needs)
        and needs.cpu <= node.cpu - node.used_cpu + _SLACK
        and needs.memory <= node.memory - node.used_memory
        and needs.gpu <= node.gpu - node.used_gpu
    )


def fits(node: Node, engines: Path | None = None) -> Fits:
    """What `JobStore.claim` asks for each claim on this node; what is used of it comes on top of the running jobs.

    Args:
        engines: where its engine host says what engines hold, read at each claim.
    """

    def able(waiting: Sequence[str], running: Mapping[str, int]) -> Sequence[str]:
        now = with_jobs(with_engines(node, engines) if engines else node, running)
        return [text for text in waiting if has_room(now, needs_from(text))]

    return able
