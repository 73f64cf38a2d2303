"""Counts the lines of each part and writes them into docs/layers.md: ``python -m tests.architecture.layers``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "layers.md"
MARKS = "<!-- generated: python -m tests.architecture.layers -->", "<!-- end -->"
#: Part of the tree → what it is; the core's own parts first, in the order of the layers.
CORE = {
    "sage_core/common": "L1 vocabulary",
    "sage_core/platform": "L2 store, artifacts",
    "sage_core/kernel/dataflow": "L3 TOML to plan",
    "sage_core/kernel/scheduler": "L3 selector chain",
    "sage_core/kernel/control_plane": "L3 model calls",
    "sage_core/kernel/runtime": "L3 jobs, workers",
    "sage_core/builtins.py": "L4 defaults",
}
BESIDE = {"sage_core/testing": "L5 test kit", "sage_core/cli": "L6 command line"}


def lines(part: str) -> tuple[int, int, int]:
    """Files, lines, and lines of the longest file below a path."""
    path = ROOT / part
    counts = [
        len(file.read_text(encoding="utf-8").splitlines())
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
    ]
    return len(counts), sum(counts), max(counts)


def table() -> list[tuple[str, str, int, int, int]]:
    """One row a part: path, what it is, files, lines, longest file."""
    plugins = {f"plugins/{p.parent.name}/{p.name}": "plugin" for p in sorted(ROOT.glob("plugins/*/sage_*"))}
    rows = [(part, what, *lines(part)) for part, what in CORE.items()]
    total = ("the core", "aim 6,000", sum(row[2] for row in rows), sum(row[3] for row in rows), max(r[4] for r in rows))
    rest = [(part, what, *lines(part)) for part, what in {**BESIDE, **plugins}.items()]
    return [*rows, total, *rest]


def render() -> str:
    """The table as Markdown."""
    head = "| Part | | Files | Lines | Longest file |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {part} | {what} | {f:,} | {n:,} | {top} |\n" for part, what, f, n, top in table())


def written() -> dict[str, int]:
    """Lines per part as the page says."""
    block = PAGE.read_text(encoding="utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0]
    rows = re.findall(r"^\| ([\w./ -]+?) \|[^|]*\| [\d,]+ \| ([\d,]+) \|", block, re.MULTILINE)
    return {part: int(count.replace(",", "")) for part, count in rows}


def main() -> None:
    """Write the table into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n{render()}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
