"""Tests of sage_core.kernel.control_plane.pool_specs: a model's table says which engines there are."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.clock import SECOND
from sage_core.common.errors import ConfigError
from sage_core.common.records import ModelSpec, QueueLimits
from sage_core.kernel.control_plane.pool_specs import members_of, pool_of


def spec(**options: Any) -> ModelSpec:
    return ModelSpec(name="chat", backend="openai", options=options)


def test_a_plain_model_is_a_pool_of_one_engine_that_opens_when_it_is_asked_for() -> None:
    plain = spec(threads=2)
    assert members_of(plain) == (plain,)
    pool = pool_of(plain)
    assert (pool.members, pool.min, pool.idle, pool.policy, pool.queue) == (1, 0, None, "", QueueLimits())


def test_a_list_of_urls_is_an_engine_each_and_all_are_kept_open() -> None:
    several = spec(base_url=["http://a", "http://b"], key="k", min=2, scheduler="hybrid")
    assert [each.options for each in members_of(several)] == [
        {"key": "k", "base_url": "http://a"},
        {"key": "k", "base_url": "http://b"},
    ]
    pool = pool_of(several)
    assert (pool.members, pool.min, pool.policy) == (2, 2, "hybrid")
    assert pool_of(spec(base_url=["http://a", "http://b"])).min == 2


def test_an_engine_of_another_backend_takes_none_of_the_options() -> None:
    mixed = spec(base_url="http://a", engines=[{"price": 3.0}, {"backend": "onnx", "source": "minilm"}])
    first, second = members_of(mixed)
    assert (first.backend, first.options) == ("openai", {"price": 3.0, "base_url": "http://a"})
    assert (second.backend, second.source, second.options) == ("onnx", "minilm", {})


def test_limits_come_from_the_table_and_then_from_the_deployment() -> None:
    pool = pool_of(
        spec(idle="10m", queue={"bytes": "1kB", "wait": "2s"}), queue=QueueLimits(requests=7, bytes=9, wait=11)
    )
    assert pool.idle == 600 * SECOND
    assert pool.queue == QueueLimits(requests=7, bytes=1_000, wait=2 * SECOND)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"idle": "soon"}, "[models.chat]: 'soon' is not a duration"),
        ({"queue": {"size": 3}}, "[models.chat]: Object contains unknown field 'size'"),
        ({"engines": [{}], "base_url": ["http://a"]}, "[models.chat]: it has both engines and a list in base_url"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pool_of(spec(**options))
    assert str(caught.value).startswith(text)
