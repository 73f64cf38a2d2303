"""The plugin as the host sees it."""

from __future__ import annotations

from pathlib import Path

import sage_policies

from sage_core import Host
from sage_core.testing import PluginContract

SOURCES = sorted(Path(sage_policies.__file__).parent.glob("*.py"))


class TestPlugin(PluginContract):
    plugin = sage_policies
    name = "policies"


def test_it_offers_what_its_readme_lists() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    offered = Host({"policies": sage_policies}).contributions("policies")
    names = [name for group in offered.values() for name in group]
    assert len(names) == 10
    assert [name for name in names if f"| `{name}` |" not in readme] == []


def test_no_file_has_more_than_150_lines() -> None:
    assert {path.name: lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 150} == {}


def test_every_policy_says_its_source_and_where_it_loses() -> None:
    host = Host({"policies": sage_policies})
    for registry, names in (
        (host.schedulers, sage_policies.sage_schedulers()),
        (host.selectors, sage_policies.sage_node_selectors()),
    ):
        for name in names:
            text = registry[name].__doc__ or ""
            assert all(word in text for word in ("Good:", "Loses:", "Source:")), name
