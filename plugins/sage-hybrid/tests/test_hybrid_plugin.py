"""The plugin as the host sees it."""

from __future__ import annotations

from pathlib import Path

import sage_hybrid

from sage_core import Host
from sage_core.testing import PluginContract

SOURCES = sorted(Path(sage_hybrid.__file__).parent.glob("*.py"))


class TestPlugin(PluginContract):
    plugin = sage_hybrid
    name = "hybrid"


def test_it_offers_one_scheduler() -> None:
    assert Host({"hybrid": sage_hybrid}).contributions("hybrid") == {"schedulers": ["hybrid"]}


def test_no_file_has_more_than_150_lines() -> None:
    assert {path.name: lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 150} == {}
