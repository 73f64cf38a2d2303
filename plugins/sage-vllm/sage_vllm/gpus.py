"""Which GPUs an engine gets: `needs.gpu` counts them in the node's ledger, here they have names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sage_core import ModelError


class Gpus:
    """The GPUs of this machine, and which engines of this process hold them.

    Args:
        root: where ``dev`` is.
    """

    def __init__(self, root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> None:
        self._root = root
        self._environ = environ
        self._held: set[str] = set()

    def all(self) -> list[str]:
        """What CUDA_VISIBLE_DEVICES leaves of the devices there are, by the names it uses."""
        visible = self._environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return [word for each in visible.split(",") if (word := each.strip()) not in ("", "-1")]
        folder = self._root / "dev"
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted((name[6:] for name in names if re.fullmatch(r"nvidia\d+", name)), key=int)

    def take(self, model: str, count: int, these: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Hold `count` free ones, or all of `these`; raises `ModelError` where there are not enough."""
        there, free = self.all(), self.free()
        chosen = these or tuple(free[:count])
        if len(chosen) < count or not set(chosen) <= set(free):
            problem = f"it needs {count} GPU{'s' if count != 1 else ''}; {len(free)} of {len(there)} here are free"
            raise ModelError(model, problem, "close an engine that holds one, or run it where there are more")
        self._held.update(chosen)
        return chosen

    def give_back(self, gpus: tuple[str, ...]) -> None:
        """Let others have them."""
        self._held.difference_update(gpus)

    def free(self) -> list[str]:
        """Those that no engine of this process holds."""
        return [gpu for gpu in self.all() if gpu not in self._held]
