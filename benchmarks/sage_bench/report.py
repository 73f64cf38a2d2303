"""Tables of results: every figure with its interval and its aim, and what was remarked."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from sage_bench.results import Figure, Line

COLUMNS = ("case", "figure", "value", "95 % interval", "unit", "n", "aim")


def rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """One row a figure, in the order of `COLUMNS`."""
    found: list[tuple[str, ...]] = []
    for line in lines:
        case = f"{line.suite}/{line.case}"
        if line.error:
            found.append((case, "not measured", "", "", "", "", ""))
        found += [(case, *_cells(figure)) for figure in line.figures]
    return found


def _cells(figure: Figure) -> tuple[str, ...]:
    spread = figure.interval
    aim = ""
    if figure.aim is not None:
        sign = "≤" if figure.better == "lower" else "≥"
        aim = f"{sign} {shown(figure.aim)}: {'met' if figure.met else 'missed'}"
    return (
        figure.name,
        f"{shown(figure.value)}",
        "" if spread is None else f"{shown(spread[0])} – {shown(spread[1])}",
        figure.unit,
        f"{len(figure.values)} {figure.over}, {figure.statistic}",
        aim,
    )


def shown(value: float) -> str:
    """Three digits that matter; figures below 1 have four decimals, because quality is compared there."""
    if value == 0 or 0.001 <= abs(value) < 1:
        return f"{value:.4f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def text(lines: Sequence[Line], *, width: int | None) -> str:
    """The table as text; `width` None leaves its lines uncut."""
    from rich.console import Console  # noqa: PLC0415 - rich is imported only to draw
    from rich.table import Table  # noqa: PLC0415 - rich is imported only to draw

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=width is None)
    for row in rows(lines):
        table.add_row(*row)
    out = StringIO()
    Console(file=out, width=width or 10_000, highlight=False).print(table)
    return "\n".join(part.rstrip() for part in (*out.getvalue().splitlines(), *remarks(lines))) + "\n"


def remarks(lines: Sequence[Line]) -> list[str]:
    """What was remarked, and why figures are missing."""
    said = [(line, remark) for line in lines for remark in (*line.remarks, *([line.error] if line.error else []))]
    return [f"{line.suite}/{line.case}: {remark}" for line, remark in said]


def markdown(lines: Sequence[Line]) -> str:
    """The table for a page of documentation, with where it was measured and the commands that made it."""
    out = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(lines)]
    out += ["", *(f"- {remark}" for remark in remarks(lines))]
    places = dict.fromkeys(place(line) for line in lines)
    loads = [float(line.machine[key]) for line in lines for key in ("load_1min", "load_1min_after")]
    if loads:
        out += ["", *places, f"Load average of the last minute while measuring: {min(loads)} to {max(loads)}."]
    return "\n".join(out) + "\n"


def place(line: Line) -> str:
    """Where and with what a line was measured."""
    machine = line.machine
    return (
        f"Python {line.python}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"revision {line.commit or 'unknown'}."
    )
