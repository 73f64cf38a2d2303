"""Says in its last line what passed on which database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """Count the tests whose names tell their database; one that needs PostgreSQL errs where none can be started."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    passed = Counter(
        store
        for report in reporter.stats.get("passed", [])
        for store in ("sqlite", "postgres")
        if store in report.nodeid
    )
    reporter.write_line(f"stores: sqlite {passed['sqlite']} passed, postgres {passed['postgres']} passed")
