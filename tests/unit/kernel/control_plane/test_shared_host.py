"""The engine host that others share: a server's, to which runs attach, and one whose model cannot be opened."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sage_core.testing.engines as fake
from sage_core import builtins
from sage_core.common.config import Config
from sage_core.common.errors import ModelError, NoEngine
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller, ModelSpec, Request
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.control_plane.events import Decided, lane_of
from sage_core.kernel.control_plane.frames import socket_path
from sage_core.kernel.control_plane.host import elected, engine_host
from tests.unit.kernel.control_plane.test_host import wait_until_left


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(project=tmp_path / "project", data=tmp_path / "data", runtime=tmp_path / "run")


def test_a_server_is_the_engine_host_of_runs_that_attach_and_each_is_logged_where_it_belongs(paths: Paths) -> None:
    """A process that serves others, too, has one control plane for all, and stays when the last run has left."""
    spec = ModelSpec(name="m", backend="fake", options={"batch_seconds": 0.001})
    paths.runtime.mkdir(parents=True)
    release = elected(socket_path(paths).with_suffix(".lock"))
    assert release is not None
    elsewhere = msgspec.structs.replace(paths, project=paths.project.parent / "other")
    watched: list[str] = []

    async def main() -> None:
        host = Host({"fake": fake}, builtins=builtins)

        def watch(lines: Sequence[tuple[Request, Decided]]) -> None:
            watched.extend(line.step for _, line in lines)

        async with engine_host(host, paths, idle=None, config=Config(), watch=watch) as service:
            serving = asyncio.create_task(service.serve(socket_path(paths)))
            own = Request(id="own", kind="embed", model="m", texts=("own",), caller=Caller(step="own"))
            assert (await service.driver.ask(own, spec)).shape == (1, 16)
            engine = service.driver.pools.info(lane_of(spec))
            for number, place in enumerate((paths, elsewhere)):
                async with UnifiedInferenceClient.create(
                    {"m": spec}, paths=place, caller=Caller(step=f"run {number}"), host=Host({})
                ) as run:
                    assert (await run.embed("m", [f"text {number}"])).shape == (1, 16)
                    info = await run.info("m")
                    # It was not started for the run, and is not opened twice.
                    assert run._shared.transport.host_pid == os.getpid()  # type: ignore[union-attr]
                    assert engine is not None
                    assert info.id == engine.id
            await asyncio.sleep(0)
            assert not serving.done()
            service.leave()
            await serving

    try:
        asyncio.run(main())
    finally:
        release()
    steps = {place: [each["step"] for each in log_lines(place)] for place in (paths.project, elsewhere.project)}
    assert steps == {paths.project: ["own", "run 0"], elsewhere.project: ["run 1"]}
    assert watched == ["own", "run 0", "run 1"]
    assert not socket_path(paths).exists()


def test_who_listens_to_a_step_hears_what_its_calls_are_answered_with(paths: Paths) -> None:
    spec = ModelSpec(name="m", backend="fake")
    paths.runtime.mkdir(parents=True)
    release = elected(socket_path(paths).with_suffix(".lock"))
    assert release is not None
    heard: list[str] = []

    async def main() -> None:
        async with engine_host(Host({"fake": fake}, builtins=builtins), paths, idle=None, config=Config()) as service:
            serving = asyncio.create_task(service.serve(socket_path(paths)))
            service.listeners["r1", "reply"] = lambda request, token: heard.append(token.text)
            async with UnifiedInferenceClient.create(
                {"m": spec}, paths=paths, caller=Caller(run="r1"), host=Host({})
            ) as run:
                for step, said in (("other", "not me"), ("reply", "one two")):
                    stream = run.bound(step=step).chat("m", [{"role": "user", "content": said}])
                    assert "".join([token.text async for token in stream]) == said
            service.leave()
            await serving

    try:
        asyncio.run(main())
    finally:
        release()
    assert heard == ["one", " two", ""]


def log_lines(project: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project / "logs" / "decisions.jsonl").read_text().splitlines()]


def test_an_engine_that_cannot_be_opened_is_said_to_the_run_with_the_reason(paths: Paths) -> None:
    spec = ModelSpec(name="m", backend="fake", options={"broken": "no memory left"})

    async def use() -> list[str]:
        said = []
        async with UnifiedInferenceClient.create({"m": spec}, paths=paths, host=Host({"fake": fake})) as client:
            for _ in range(4):
                with pytest.raises((ModelError, NoEngine)) as caught:
                    await client.embed("m", ["a"])
                said.append(str(caught.value))
        return said

    first, *_, last = asyncio.run(use())
    wait_until_left(paths)
    assert first == "model 'm': no memory left\n  help: remove the option broken"
    assert "no memory left" in last
