"""Says at the end how many schedules were played, of how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    lines = sorted(
        str(value)
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
        if key == "interleavings"
    )
    if lines:
        terminalreporter.section("interleavings")
    for line in lines:
        terminalreporter.write_line(line)
