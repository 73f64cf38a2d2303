"""Secrets of a model: in place for the backend that opens it, a reference everywhere else."""

from __future__ import annotations

import pytest

from sage_core.common.errors import BadValue
from sage_core.common.records import ModelSpec
from sage_core.kernel.control_plane.engines import revealed


def test_a_secret_is_put_in_place_wherever_it_is_named() -> None:
    spec = ModelSpec(
        name="m", backend="b", source="http://host/${secret.PATH_KEY}", options={"keys": ["${secret.API_KEY}"], "n": 3}
    )

    made = revealed(spec, {"API_KEY": "k-1", "PATH_KEY": "p-2"})

    assert made == ModelSpec(name="m", backend="b", source="http://host/p-2", options={"keys": ["k-1"], "n": 3})


def test_a_secret_that_is_not_set_names_its_variable() -> None:
    spec = ModelSpec(name="m", backend="b", options={"key": "${secret.API_KEY}"})

    with pytest.raises(BadValue, match="API_KEY"):
        revealed(spec, {})
