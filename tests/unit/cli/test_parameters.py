"""Tests of sage_core.cli.parameters."""

from __future__ import annotations

import pytest

from sage_core.cli.parameters import parse
from sage_core.common.errors import UsageError


def test_the_first_equals_sign_parts_name_and_value() -> None:
    assert parse(["a=1", " b =x=y ", "c="]) == {"a": "1", "b": "x=y ", "c": ""}


@pytest.mark.parametrize("param", ["question", "", "=x", "  =x"])
def test_what_is_no_pair_is_refused_with_an_example(param: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse([param])
    assert str(caught.value) == (
        f'--param {param!r} is not NAME=VALUE\n  help: for example: --param question="What is SAGE?"'
    )


def test_a_name_is_given_once() -> None:
    with pytest.raises(UsageError, match="--param a is given twice"):
        parse(["a=1", "a=2"])
