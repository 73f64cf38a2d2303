"""Environments of other software, which uv makes where they are missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sage_core import SageError


def environment(cache: Path, name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's environment."""
    python = cache / name / "bin" / "python"
    if not python.exists():
        for command in (
            ["uv", "venv", "--quiet", "--python", sys.executable, str(cache / name)],
            ["uv", "pip", "install", "--quiet", "--python", str(python), *packages],
        ):
            done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SageError(f"{name} cannot be installed: {done.stderr.strip()[-500:]}")
    return python
