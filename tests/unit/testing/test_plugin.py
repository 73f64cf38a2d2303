"""The pytest plugin costs other people's tests nothing, and its fixtures keep a test to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from sage_core import Host
from sage_core.common.paths import find_paths
from sage_core.testing import FakeClock

LOADED = """
import sys, pytest
before = set(sys.modules)
import sage_core.testing.plugin
print(*sorted(set(sys.modules) - before))
"""


def test_loading_it_imports_nothing_but_itself() -> None:
    output = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["sage_core", "sage_core.testing", "sage_core.testing.plugin"]


def test_a_home_is_the_tests_own(sage_home: Path) -> None:
    assert find_paths(Path("/")).data.is_relative_to(sage_home)
    assert "SAGE_PLUGINS" not in os.environ


def test_hosts_come_with_the_defaults(sage_host: Callable[[Mapping[str, object] | None], Host]) -> None:
    assert "fifo" in sage_host({}).schedulers


def test_the_clock_stands_still(sage_clock: FakeClock) -> None:
    assert sage_clock.now() == sage_clock.now() == 0
