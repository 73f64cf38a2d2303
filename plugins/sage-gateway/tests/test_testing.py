from __future__ import annotations

from pathlib import Path

import pytest
from sage_gateway.testing import PlainBackend, Running, serving

from sage_core import ConfigError, Forwards, Generates, ModelSpec
from sage_core.serving import default_host


def test_what_cannot_be_served_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), serving(tmp_path, default_host({}), {"chat": {}}):
        pass


def test_a_gateway_that_was_left_serves_no_more(tmp_path: Path) -> None:
    with serving(tmp_path, default_host({}), {}) as running:
        assert running.call(lambda: 7) == 7
    with pytest.raises(OSError, match="refused"):
        running.send("/health", {})


def test_a_plain_engine_only_writes(running: Running) -> None:
    async def able() -> tuple[bool, bool]:
        async with PlainBackend().open(ModelSpec(name="m", backend="plain")) as engine:
            return isinstance(engine, Generates), isinstance(engine, Forwards)

    assert running.wait(able()) == (True, False)
