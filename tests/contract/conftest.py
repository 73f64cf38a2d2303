"""Says at the end what passed on which database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Count the tests whose names tell their database; one that needs PostgreSQL errs where none can be started."""
    passed = Counter(
        store
        for report in terminalreporter.stats.get("passed", [])
        for store in ("sqlite", "postgres")
        if store in report.nodeid
    )
    terminalreporter.write_line(f"stores: sqlite {passed['sqlite']} passed, postgres {passed['postgres']} passed")
