"""The hookspecs keep the two shapes that the page on hooks describes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import get_type_hints

import pytest

from sage_core.common.hooks import known_hooks


@pytest.mark.parametrize("name", sorted(known_hooks()))
def test_a_hook_offers_names_or_observes(name: str) -> None:
    spec = known_hooks()[name]
    hints = get_type_hints(spec)
    if name.startswith("sage_on_"):
        assert hints["return"] is type(None)
        assert inspect.signature(spec).parameters
    else:
        assert hints["return"] == Mapping[str, str]
        assert not inspect.signature(spec).parameters
    assert not inspect.iscoroutinefunction(spec)
    assert vars(spec)["sage_spec"]["firstresult"] is False
    assert spec.__doc__
