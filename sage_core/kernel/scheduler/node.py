"""What this machine offers: found out from the system, unless ``[cluster]`` says otherwise."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sage_core.common.config import Config
from sage_core.common.records import Node

#: Label of every node that has a GPU.
GPU = "gpu"


def node_name(config: Config) -> str:
    """What this machine is called in the cluster."""
    return config.cluster.node or os.uname().nodename


def this_node(config: Config, *, root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Node:
    """Describe this machine, or the slice of it that its control group leaves to SAGE.

    Args:
        root: where ``proc``, ``sys`` and ``dev`` are.
    """
    said = config.cluster
    kinds = [] if said.gpu == 0 else _gpus(root, environ)
    gpu = len(kinds) if said.gpu is None else said.gpu
    return Node(
        name=node_name(config),
        cpu=_cpu(root) if said.cpu is None else said.cpu,
        memory=_memory(root) if said.memory is None else said.memory,
        gpu=gpu,
        gpu_memory=said.gpu_memory if gpu else 0,
        labels=tuple(sorted({*said.labels, *kinds, GPU if gpu else ""} - {""})),
    )


def _cpu(root: Path) -> float:
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for group in _groups(root, "cpu"):
        # Version 2 has quota and period in one file, and the word max for none; version 1 has -1.
        words = _read(group / "cpu.max").split()
        words = words or [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if all(word.isdecimal() for word in words) and int(words[1]) > 0:
            cores = min(cores, int(words[0]) / int(words[1]))
    return cores


def _memory(root: Path) -> int:
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            word = _read(group / name).strip()
            limit = min(limit, int(word)) if word.isdecimal() else limit
    return limit


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control group of this process and of those above it, in both versions of the hierarchy."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        # In a container the place may be that of the host, where only the top is mounted.
        here = top / place.lstrip("/")
        yield from (group for group in (here, *here.parents) if group.is_relative_to(top))


def _gpus(root: Path, environ: Mapping[str, str]) -> list[str]:
    """A word for the kind of each GPU, empty where the driver does not tell."""
    devices = [entry for entry in _entries(root / "dev") if re.fullmatch(r"nvidia\d+", entry.name)]
    cards = [_read(card / "information") for card in _entries(root / "proc/driver/nvidia/gpus")]
    models = [found[1] for card in cards if (found := re.search(r"Model:\s*(.+)", card))]
    kinds = [re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") for model in models] + [""] * len(devices)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    shown = (
        math.inf if visible is None else len([each for each in visible.split(",") if each.strip() not in ("", "-1")])
    )
    nodes = _entries(root / "sys/class/kfd/kfd/topology/nodes")
    amd = ["amd" for node in nodes if _read(node / "gpu_id").strip() not in ("", "0")]
    return kinds[: int(min(len(devices), shown))] + amd


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
