"""What every chaos test uses: a place on each database, a nest of processes, the ledger that is printed at the end."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Nest
from tests.chaos.server import Server

KINDS = ("sqlite", "postgres")
LEDGER = pytest.StashKey[Ledger]()
SEED = pytest.StashKey[int]()
PASSED = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the long form and a seed."""
    parser.addoption("--long", action="store_true", help="chaos: a minute of faults per test instead of seconds")
    parser.addoption("--seed", type=int, help="chaos: draw the same faults as another run did")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the account."""
    seed = config.getoption("--seed", None)
    config.stash[SEED] = seed if seed is not None else random.SystemRandom().randrange(10**6)
    config.stash[LEDGER] = Ledger()
    config.stash[PASSED] = Counter()
    config.pluginmanager.register(_Count(config.stash[PASSED]), "chaos-count")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests under load time for their faults, and for the reckoning over what was done meanwhile."""
    for item in items:
        if "seconds" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(120 + 3 * _seconds(config)))


def pytest_report_header(config: pytest.Config) -> str:
    """Say what was drawn; processes race, so a seed repeats the faults but not their every moment."""
    return f"chaos: --seed {config.stash[SEED]}, {_seconds(config):g} s of faults per test under load"


class _Count:
    def __init__(self, passed: Counter[str]) -> None:
        self._passed = passed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.update(kind for kind in KINDS if f"[{kind}" in report.nodeid or f"-{kind}]" in report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the account."""
    passed = config.stash[PASSED]
    terminalreporter.section(f"chaos, --seed {config.stash[SEED]}")
    for line in config.stash[LEDGER].table():
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"stores: sqlite {passed['sqlite']} passed, postgres {passed['postgres']} passed")


def _seconds(config: pytest.Config) -> float:
    given = os.environ.get("SAGE_CHAOS_SECONDS")
    if given:
        return float(given)
    return 60.0 if config.getoption("--long", False) else 1.0


@pytest.fixture(scope="session")
def seconds(pytestconfig: pytest.Config) -> float:
    """How long a test under load goes on injecting faults."""
    return _seconds(pytestconfig)


@pytest.fixture
def chance(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> random.Random:
    """The test's own random numbers."""
    return random.Random(f"{pytestconfig.stash[SEED]} {request.node.name}")


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    """Where faults are booked."""
    return pytestconfig.stash[LEDGER]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The PostgreSQL server of this session, which tests may stop and must leave running."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def nest() -> Iterator[Nest]:
    """Where victims and helpers are forked."""
    with Nest() as nest:
        yield nest


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database; a test of one only parametrizes this."""
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty store on that database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/sage.db"
    server: Server = request.getfixturevalue("server")
    return server.schema_url(tmp_path)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """The test's history."""
    history = History(tmp_path / "history")
    yield history
    history.close()


@pytest.fixture
def started() -> float:
    """When the test began."""
    return time.monotonic()
