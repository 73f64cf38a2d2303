"""The engine host as a real process: shared engines, election, death and restart, and leaving with the last client."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import numpy
import pytest

import sage_core.testing.engines as fake
from sage_core import builtins
from sage_core.common.errors import EngineHostError, ModelError, UnknownName
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller, ModelSpec, Request
from sage_core.kernel.control_plane import frames
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.control_plane.frames import PROTOCOL, Failed, Hello, socket_path
from sage_core.kernel.control_plane.host import EngineHost, elected
from sage_core.kernel.control_plane.remote import EngineHostLink

CLIENT = """
import asyncio, sys
from pathlib import Path
import sage_core.testing.engines as fake
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller, ModelSpec
from sage_core.kernel.control_plane.client import UnifiedInferenceClient

async def main(root, journal, worker):
    paths = Paths(project=root / "project", data=root / "data", runtime=root / "run")
    models = {"m": ModelSpec(name="m", backend="fake", options={"journal": journal, "batch_seconds": 0.002})}
    caller = Caller(worker=worker, run="r1")
    host = Host({"fake": fake})
    async with UnifiedInferenceClient.create(models, paths=paths, caller=caller, host=host) as client:
        for number in range(5):
            vectors = await client.bound(step=f"s{number}").embed("m", [f"{worker} {number}", "shared"])
            assert vectors.shape == (2, 16)
        print(client._shared.transport.host_pid)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    found = Paths(project=tmp_path / "project", data=tmp_path / "data", runtime=tmp_path / "run")
    yield found
    lock = socket_path(found).with_suffix(".lock")
    if lock.exists() and socket_path(found).exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(lock.read_text()), signal.SIGTERM)
    wait_until_left(found)


def wait_until_left(paths: Paths) -> None:
    """Block until no engine host holds the lock: it leaves half a second after its last client."""
    with contextlib.suppress(FileNotFoundError), socket_path(paths).with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def client(
    paths: Paths, *, worker: str = "w", journal: Path | None = None, **options: object
) -> UnifiedInferenceClient:
    if journal is not None:
        options["journal"] = str(journal)
    models = {"m": ModelSpec(name="m", backend="fake", options=dict(options))}
    host = Host({"fake": fake}, builtins=builtins)
    return UnifiedInferenceClient.create(models, paths=paths, caller=Caller(worker=worker), host=host)


def link(opened: UnifiedInferenceClient) -> EngineHostLink:
    transport = opened._shared.transport
    assert isinstance(transport, EngineHostLink)
    return transport


async def until(journal: Path, word: str, count: int) -> None:
    def written() -> int:
        return journal.read_text().count(word) if journal.exists() else 0

    while written() < count:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)


def decisions(paths: Paths) -> list[dict[str, object]]:
    return [json.loads(line) for line in (paths.logs / "decisions.jsonl").read_text().splitlines()]


def test_two_processes_share_one_engine_and_one_decision_log(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(tmp_path), str(journal), worker], stdout=subprocess.PIPE, text=True
        )
        for worker in ("one", "two")
    ]
    hosts = {process.communicate(timeout=30)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(hosts) == 1
    wait_until_left(paths)
    assert journal.read_text().splitlines().count("m open") == 1
    lines = decisions(paths)
    assert {(line["worker"], line["step"]) for line in lines} == {
        (w, f"s{n}") for w in ("one", "two") for n in range(5)
    }
    assert {line["outcome"] for line in lines} == {"done"}
    assert "shared" not in (paths.logs / "decisions.jsonl").read_text()


def test_the_host_leaves_after_its_last_client_and_closes_its_engines(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def use() -> int:
        async with client(paths, journal=journal) as opened:
            await opened.embed("m", ["a"])
            async with client(paths, journal=journal) as other:
                await other.info("m")
                assert link(other).host_pid == link(opened).host_pid
            return link(opened).host_pid

    pid = asyncio.run(use())
    wait_until_left(paths)
    assert journal.read_text().splitlines() == ["m open", "m batch 1", "m close"]
    assert not socket_path(paths).exists()
    # A child of this process that nobody waits for any more.
    assert os.waitpid(pid, 0) == (pid, 0)


def test_a_request_survives_the_death_of_the_host(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def use() -> tuple[int, int]:
        async with client(paths, journal=journal, batch_seconds=0.3) as opened:
            await opened.info("m")
            first = link(opened).host_pid
            asked = asyncio.create_task(opened.embed("m", ["a", "b"]))
            await until(journal, "batch", 1)
            os.kill(first, signal.SIGKILL)
            vectors = await asked
            assert numpy.array_equal(vectors, await opened.embed("m", ["a", "b"]))
            return first, link(opened).host_pid

    first, second = asyncio.run(use())
    assert first != second
    assert journal.read_text().splitlines() == ["m open", "m batch 2", "m open", "m batch 2", "m batch 2"]


def test_a_request_that_dies_twice_is_an_error(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def use() -> None:
        async with client(paths, journal=journal, batch_seconds=20) as opened:
            asked = asyncio.create_task(opened.embed("m", ["a"]))
            for deaths in (1, 2):
                await until(journal, "batch", deaths)
                os.kill(link(opened).host_pid, signal.SIGKILL)
            with pytest.raises(
                EngineHostError, match=r"died while it worked on this request\n  help: .*engine-host.log"
            ):
                await asked

    asyncio.run(use())


def test_a_stream_that_has_begun_is_not_repeated(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths, tokens_per_second=20) as opened:
            stream = opened.generate("m", [{"role": "user", "content": "a b c d e f"}])
            assert (await anext(stream)).text == "a"
            os.kill(link(opened).host_pid, signal.SIGKILL)
            with pytest.raises(EngineHostError, match="died"):
                async for _ in stream:
                    pass

    asyncio.run(use())


def test_a_cancelled_stream_is_closed_in_the_host_and_gives_its_seat_back(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def use() -> None:
        async with client(paths, journal=journal, text="markov", tokens_per_second=1_000) as opened:
            message = [{"role": "user", "content": "a b"}]
            async with aclosing(opened.generate("m", message, max_tokens=100_000)) as stream:  # type: ignore[type-var]
                await anext(stream)
            # The engine has one seat.
            tokens = [token async for token in opened.generate("m", message, max_tokens=3)]
            assert tokens[-1].completion_tokens == 3

    asyncio.run(use())
    assert journal.read_text().splitlines()[1:3] == ["m cancelled", "m end"]


def test_what_a_dropped_client_asked_for_is_cancelled(paths: Paths, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    async def use() -> None:
        async with client(paths, journal=journal, text="markov", tokens_per_second=1_000) as opened:
            async with client(paths, journal=journal, text="markov", tokens_per_second=1_000) as other:
                stream = other.generate("m", [{"role": "user", "content": "a b"}], max_tokens=100_000)
                await anext(stream)
                link(other)._listener.cancel()  # type: ignore[union-attr]
            tokens = [token async for token in opened.generate("m", [{"role": "user", "content": "c"}], max_tokens=2)]
            assert tokens[-1].finish == "length"

    asyncio.run(use())
    assert "m cancelled" in journal.read_text()


def test_errors_arrive_as_they_were_raised(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths, poison="arsenic") as opened:
            with pytest.raises(ModelError) as caught:
                await opened.embed("m", ["arsenic"])
            assert "model 'm': its engine raised ValueError: cannot swallow 'arsenic'" in str(caught.value)
            assert (await opened.embed("m", ["water"])).shape == (1, 16)
            with pytest.raises(ModelError, match=r"model 'n': no model has this name.*Known: m\."):
                await opened.embed("n", ["x"])

        models = {"x": ModelSpec(name="x", backend="nothing")}
        async with UnifiedInferenceClient.create(models, paths=paths, host=Host({"fake": fake})) as opened:
            with pytest.raises(UnknownName, match="No backend is named 'nothing'"):
                await opened.info("x")

    asyncio.run(use())


def test_every_kind_crosses_the_socket(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths) as opened:
            assert await opened.rerank("m", "a b", ["a", "c"]) == [1 / 3, 0.0]
            assert await opened.rerank("m", "a b", []) == []
            assert await opened.tokenize("m", ["to be", ""]) == [[(0, 2), (3, 5)], []]
            assert (await opened.embed("m", [])).shape == (0, 16)
            tokens = [token async for token in opened.generate("m", [{"role": "user", "content": "one two"}])]
            assert "".join(token.text for token in tokens) == "one two"
            assert tokens[-1].finish == "stop"

    asyncio.run(use())


def test_a_host_that_cannot_start_is_an_error_that_names_its_log(paths: Paths) -> None:
    class Broken(Host):
        def modules(self) -> dict[str, str]:
            return {"gone": "no_such_module"}

    async def use() -> None:
        models = {"m": ModelSpec(name="m", backend="fake")}
        async with UnifiedInferenceClient.create(models, paths=paths, host=Broken({"fake": fake})) as opened:
            await opened.embed("m", ["a"])

    with pytest.raises(EngineHostError, match="ended with exit code 1") as caught:
        asyncio.run(use())
    assert "No module named 'no_such_module'" in Path(caught.value.args[1]).read_text()


def test_a_client_of_another_version_is_refused_with_the_reason(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths) as opened:
            await opened.info("m")
            reader, writer = await asyncio.open_unix_connection(socket_path(paths))
            writer.write(frames.pack(Hello(protocol=PROTOCOL + 1, worker="", logs="", models={})))
            answer = await frames.read(reader)
            assert isinstance(answer, Failed)
            assert (answer.error, answer.id) == ("EngineHostError", "")
            writer.close()
            assert (await opened.embed("m", ["still here"])).shape == (1, 16)

    asyncio.run(use())


def test_garbage_on_the_socket_harms_nobody(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths) as opened:
            await opened.info("m")
            for garbage in (b"\xff" * 64, b"\x04\x00\x00\x00abcd", b"\x01"):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(str(socket_path(paths)))
                    raw.sendall(garbage)
            assert (await opened.embed("m", ["still here"])).shape == (1, 16)

    asyncio.run(use())


def test_a_client_that_asks_nothing_starts_nothing(paths: Paths) -> None:
    async def use() -> None:
        async with client(paths):
            pass

    asyncio.run(use())
    assert not paths.runtime.exists()


def test_the_lock_elects_one(tmp_path: Path) -> None:
    lock = tmp_path / "engines.lock"
    release = elected(lock)
    assert release is not None
    assert elected(lock) is None
    release()
    assert not lock.exists()
    again = elected(lock)
    assert again is not None
    again()


def test_of_two_hosts_started_at_once_one_serves_and_one_leaves(paths: Paths) -> None:
    command = [sys.executable, "-m", "sage_core.kernel.control_plane.host", "--plugin=fake=sage_core.testing.engines"]
    command += [f"--{name}={getattr(paths, name)}" for name in ("project", "data", "runtime")]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]

    async def use() -> int:
        async with client(paths) as opened:
            await opened.embed("m", ["a"])
            return link(opened).host_pid

    serving = asyncio.run(use())
    assert [process.wait(timeout=20) for process in started] == [0, 0]
    assert serving > 0
    wait_until_left(paths)
    assert list(paths.runtime.iterdir()) == []


def test_what_a_killed_host_leaves_does_not_hinder_the_next(paths: Paths) -> None:
    async def use(*, kill: bool) -> int:
        async with client(paths) as opened:
            await opened.embed("m", ["a"])
            pid = link(opened).host_pid
            if kill:
                os.kill(pid, signal.SIGKILL)
        return pid

    killed = asyncio.run(use(kill=True))
    assert sorted(path.name for path in paths.runtime.iterdir()) == ["engines.held", "engines.lock", "engines.sock"]
    assert asyncio.run(use(kill=False)) != killed
    wait_until_left(paths)
    assert list(paths.runtime.iterdir()) == []


def test_a_folder_too_deep_for_a_socket_is_served_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    paths = Paths(project=deep / "project", data=deep / "data", runtime=deep / "run")

    async def use() -> None:
        async with client(paths) as opened:
            assert (await opened.embed("m", ["a"])).shape == (1, 16)

    asyncio.run(use())
    wait_until_left(paths)
    assert not socket_path(paths).exists()
    assert not socket_path(paths).with_suffix(".lock").exists()


def test_where_decisions_go_is_forgotten_with_the_request_however_it_ends(tmp_path: Path) -> None:
    async def use() -> None:
        host = EngineHost()
        request = Request(id="r", kind="embed", model="m")
        log = host.open_log(str(tmp_path))
        for error in (ModelError("m", "failed"), asyncio.CancelledError()):
            with contextlib.suppress(ModelError, asyncio.CancelledError), host.logged("r", log):
                assert host.log_of(request) is log
                raise error
            # A line of the same instant still finds its way.
            assert host.log_of(request) is log
            await asyncio.sleep(0)
            with pytest.raises(KeyError):
                host.log_of(request)

    asyncio.run(use())


def test_a_deep_runtime_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = Paths(project=tmp_path, data=tmp_path, runtime=tmp_path / ("x" * 120))
    short = Paths(project=tmp_path, data=tmp_path, runtime=Path("/run/sage"))
    assert len(os.fsencode(socket_path(deep))) <= 100
    assert socket_path(deep) == socket_path(deep)
    assert socket_path(deep) != socket_path(Paths(project=tmp_path, data=tmp_path, runtime=tmp_path / ("y" * 120)))
    assert socket_path(short) == Path("/run/sage/engines.sock")
