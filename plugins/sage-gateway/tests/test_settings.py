from __future__ import annotations

import pytest
from sage_gateway.settings import GatewaySettings, read_settings

from sage_core import ConfigError


def test_the_defaults() -> None:
    limits = read_settings({}).queue_limits
    assert (limits.requests, limits.bytes, limits.wait) == (10_000, 2**30, 120_000_000_000)
    assert read_settings({}) == GatewaySettings()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"hots": "::"}, "unknown field 'hots'"),
        ({"max_body": "much"}, "[gateway] max_body: 'much' is not a size"),
        ({"grace": "10"}, "[gateway] grace: '10' is not a duration"),
        ({"files": {"keep": "long"}}, "[gateway.files] keep: 'long' is not a duration"),
        ({"queue": {"wait": "long"}}, "[gateway.queue]: 'long' is not a duration"),
        ({"queue": {"requests": 0}}, "Expected 'int' >= 1"),
        ({"prices": {"m": {"input": float("nan")}}}, "Expected 'float' >= 0"),
        ({"prices": {"m": {"output": -1.0}}}, "Expected 'float' >= 0"),
        ({"prices": {"m": {"output": float("inf")}}}, "Expected 'float' <= 1"),
        ({"server": "apache"}, "Invalid enum value 'apache'"),
    ],
)
def test_what_is_wrong_is_said(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(table)
    assert message in str(caught.value)


def test_files_are_kept_for_a_month_or_for_ever() -> None:
    assert read_settings({}).files.seconds == 30 * 86_400
    assert read_settings({"files": {"keep": ""}}).files.seconds is None
