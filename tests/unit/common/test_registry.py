"""A registry: names first, objects when they are used."""

from __future__ import annotations

import pytest

from sage_core import PluginError, UnknownName
from sage_core.common.registry import Registry


@pytest.fixture
def registry() -> Registry:
    made = Registry("operator")
    made.add("maths", {"math.sqrt": "math:sqrt", "math.gone": "math:gone"})
    made.add("other", {"math.sqrt": "cmath:sqrt", "text.dedent": "textwrap:dedent"})
    return made


def test_names_are_sorted_and_the_first_plugin_keeps_them(registry: Registry) -> None:
    assert list(registry) == ["math.gone", "math.sqrt", "text.dedent"]
    assert (registry.origin("math.sqrt"), registry.target("math.sqrt")) == ("maths", "math:sqrt")
    assert [duplicate.args for duplicate in registry.duplicates] == [("operator", "math.sqrt", "maths", "other")]


def test_an_object_is_what_its_target_says(registry: Registry) -> None:
    assert registry["math.sqrt"](9.0) == 3.0  # type: ignore[operator]


def test_what_is_not_there_names_plugin_and_target(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"plugin 'maths': operator 'math.gone' \(math:gone\) cannot be imported: A"):
        registry["math.gone"]


def test_an_unknown_name_says_what_is_known_and_why_more_may_be_missing(registry: Registry) -> None:
    registry.hint = "Not loaded: x (broken)."
    for ask in (registry.origin, registry.target, registry.__getitem__):
        with pytest.raises(UnknownName) as caught:
            ask("math.sqrd")
        assert str(caught.value).startswith("No operator is named 'math.sqrd'. Did you mean 'math.sqrt'? Known: math.g")
        assert str(caught.value).endswith("Not loaded: x (broken).")
    assert "math.sqrd" not in registry
