"""The account of a chaos run: how many faults of each kind, what they cost, and that nothing is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from tests.chaos.history import Verdict


class Entry(msgspec.Struct):
    """Faults of one kind on one database."""

    injected: int = 0
    recovered: int = 0
    lost: int = 0
    duplicated: int = 0
    #: Seconds each fault took to be made good.
    times: list[float] = msgspec.field(default_factory=list)


class Ledger:
    """Counts faults by kind; a fault is recovered when its trial ends with a clean history."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def settle(self, kind: str, injected: int, verdict: Verdict, times: Iterable[float] = ()) -> None:
        """Book the faults of a trial with its verdict; a trial that found anything wrong fails here."""
        entry = self.entries.setdefault(kind, Entry())
        entry.injected += injected
        entry.lost += len(verdict.lost)
        entry.duplicated += len(verdict.duplicated)
        entry.times += times
        assert verdict == ([], []), f"{kind}: {verdict}"
        entry.recovered += injected

    def table(self) -> list[str]:
        """The account as lines of text."""
        head = f"{'fault':<58}{'injected':>9}{'recovered':>10}{'lost':>6}{'duplicated':>11}{'p50 s':>8}{'p99 s':>8}"
        lines = [head]
        total = Entry()
        for kind, entry in sorted(self.entries.items()):
            lines.append(_line(kind, entry))
            for name in ("injected", "recovered", "lost", "duplicated"):
                setattr(total, name, getattr(total, name) + getattr(entry, name))
            total.times += entry.times
        return [*lines, _line("all", total)]


def _line(kind: str, entry: Entry) -> str:
    counts = f"{entry.injected:>9}{entry.recovered:>10}{entry.lost:>6}{entry.duplicated:>11}"
    return f"{kind:<58}{counts}{_quantile(entry.times, 0.5):>8}{_quantile(entry.times, 0.99):>8}"


def _quantile(times: Iterable[float], share: float) -> str:
    ordered = sorted(times)
    return f"{ordered[math.ceil(share * len(ordered)) - 1]:.3f}" if ordered else "-"
