"""SAGE's pytest plugin: a home of its own for each test, hosts, and a clock to turn by hand.

Every pytest of an environment with SAGE loads this module, so it imports nothing but pytest until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sage_core.common.host import Host
    from sage_core.testing.clock import FakeClock

_STORE = ("store", *(f"store_{part}" for part in ("claims", "cluster", "keys", "queues", "releases", "suite")))
pytest.register_assert_rewrite(
    *(f"sage_core.testing.{suite}" for suite in ("fleet", "hosts", "operators", "schedulers", "selectors", *_STORE))
)


@pytest.fixture
def sage_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``SAGE_HOME`` of the test's own: nothing of the user's is read or written, no plugin setting leaks in."""
    home = tmp_path / "sage-home"
    for name in ("SAGE_CONFIG", "SAGE_PLUGINS", "SAGE_TRACE_HOOKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGE_HOME", str(home))
    return home


@pytest.fixture
def sage_host() -> Callable[[Mapping[str, object] | None], Host]:
    """Make hosts with the defaults: ``sage_host({"mine": module})``; None loads the installed plugins."""
    from sage_core.builtins import default_host  # noqa: PLC0415 - see the module's docstring

    return default_host


@pytest.fixture
def sage_clock() -> FakeClock:
    """A clock that moves only by ``advance(seconds)``."""
    from sage_core.testing.clock import FakeClock  # noqa: PLC0415 - see the module's docstring

    return FakeClock()
