"""What a case came to: one JSON line with its figures, where and with what they were measured, and how to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from sage_bench.intervals import Statistic, interval, summarise
from sage_core import UsageError


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity: every single value is kept, so that a report can be made again from the file."""

    name: str
    unit: str
    #: One per repeat, or per question where the spread over questions is what matters.
    values: tuple[float, ...]
    statistic: Statistic = "median"
    better: Literal["lower", "higher", ""] = ""
    #: What SAGE aims for; a figure without an aim is reported and not judged.
    aim: float | None = None
    #: What the values are one per.
    over: str = "repeats"

    @property
    def value(self) -> float:
        """The figure itself."""
        return summarise(self.values, self.statistic)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval."""
        return interval(self.values, self.statistic)

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.better == "lower" else self.value >= self.aim


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure returns."""

    figures: tuple[Figure, ...]
    #: Counts and settings that belong to the figures.
    facts: dict[str, Any] = {}
    #: Sentences that a reader must not miss.
    remarks: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case of one suite, as it is written to the result file."""

    suite: str
    case: str
    seed: int
    repeat: int
    #: Revision of the sources measured, with ``+changes`` when files differ from it; empty outside a checkout.
    commit: str
    started_at: str
    seconds: float
    python: str
    packages: dict[str, str]
    machine: dict[str, Any]
    #: Commands that measure this again.
    rerun: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    facts: dict[str, Any] = {}
    remarks: tuple[str, ...] = ()
    #: Why there are no figures.
    error: str = ""


def encode(line: Line) -> bytes:
    """The line as JSON, without a line end; figures carry their summary for readers without this package."""
    plain = msgspec.to_builtins(line)
    for figure, found in zip(plain.get("figures", ()), line.figures, strict=True):
        figure["value"] = round(found.value, 6)
        figure["interval"] = None if found.interval is None else [round(bound, 6) for bound in found.interval]
    return msgspec.json.encode(plain)


def read_lines(file: Path) -> list[Line]:
    """Every line of a result file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "name a file written with --out") from None
    lines = []
    for number, data in enumerate(content.splitlines(), 1):
        if not data.strip():
            continue
        try:
            lines.append(msgspec.json.decode(data, type=Line))
        except msgspec.DecodeError as error:
            problem = f"{file}, line {number}: not a result of `sage bench`: {error}"
            raise UsageError(problem, "name a file written with --out") from None
    return lines
