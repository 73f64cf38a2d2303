"""Composing the control plane from plugins and sage.toml, and where its decisions are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

import sage_core.testing.engines as fake
from sage_core import builtins
from sage_core.common.config import Config
from sage_core.common.errors import UnknownName
from sage_core.common.hookspecs import hookimpl
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Request
from sage_core.kernel.control_plane.inline import build_manager, inline_driver

SPEC = ModelSpec(name="m", backend="fake")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    @hookimpl
    def sage_on_request_decided(self, request: Request, decision: Mapping[str, object]) -> None:
        self.seen.append((request.id, decision["outcome"]))


def embed(host: Host, paths: Paths, *texts: str) -> None:
    async def use() -> None:
        async with inline_driver(host, Config(), paths) as driver:
            await driver.ask(Request(id="r", kind="embed", model="m", texts=texts), SPEC)

    asyncio.run(use())


def test_a_host_without_defaults_is_served_first_come_first_served(tmp_path: Path) -> None:
    paths = Paths(project=tmp_path / "p", data=tmp_path / "d", runtime=tmp_path / "r")
    embed(Host({"fake": fake}), paths, "a")
    (line,) = map(json.loads, (paths.logs / "decisions.jsonl").read_text().splitlines())
    assert (line["request"], line["outcome"]) == ("r", "done")


def test_decisions_reach_the_plugins_that_observe_them(tmp_path: Path) -> None:
    watcher = Watcher()
    paths = Paths(project=tmp_path / "p", data=tmp_path / "d", runtime=tmp_path / "r")
    embed(Host({"fake": fake, "watcher": watcher}, builtins=builtins), paths, "a", "b")
    assert watcher.seen == [("r", "done")]


@pytest.mark.parametrize("field", ["requests", "selector"])
def test_a_policy_or_selector_that_is_not_there_is_an_error(field: str) -> None:
    config = Config()
    config = msgspec.structs.replace(config, scheduler=msgspec.structs.replace(config.scheduler, **{field: "fiffo"}))
    with pytest.raises(UnknownName, match="fiffo"):
        build_manager(Host(builtins=builtins), config)
