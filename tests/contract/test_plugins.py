"""The suite for plugins: what is ours passes, and wrong plugins fail the test meant for them."""

from __future__ import annotations

import pytest

import sage_core.testing.engines as fakes
from sage_core import builtins, hookimpl
from sage_core.testing import PluginContract
from tests.contract.suites import assert_fails


class TestBuiltins(PluginContract):
    plugin = builtins


class TestFakes(PluginContract):
    plugin = fakes


class Gone:
    @hookimpl
    def sage_operators(self) -> dict[str, str]:
        return {"gone.away": "no_such_module:away"}


class Unmarked:
    def sage_operators(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("wrong", "test", "message"),
    [
        (Gone, "test_every_entry_keeps_its_contract", "'gone.away' .* cannot be imported"),
        (Unmarked, "test_it_loads", "sage_operators is not marked with @hookimpl"),
    ],
)
def test_a_wrong_plugin_fails(wrong: type, test: str, message: str) -> None:
    assert_fails(PluginContract, test, message, plugin=wrong())
