"""The backend with a program that looks like vLLM: started, asked, put to sleep, adopted, ended."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sage_vllm.backend import VllmBackend
from sage_vllm.engine import VllmEngine
from sage_vllm.gpus import Gpus

from sage_core import AttemptFailed, ModelError, ModelSpec, Request

from .conftest import Fake, alive, eventually, gone, until


def ask(**fields: Any) -> Request:
    messages = ({"role": "user", "content": "hello"},)
    return Request(id="1", kind="generate", model="chat", messages=messages, **fields)


def run(body: Any) -> Any:
    return asyncio.run(asyncio.wait_for(body, 30))


def words_of(pid: int) -> str:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def machine(folder: Path, count: int, **environ: str) -> Gpus:
    """A machine with so many GPUs, as far as files can say so."""
    (folder / "dev").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "dev" / f"nvidia{number}").touch()
    (folder / "dev" / "nvidiactl").touch()
    return Gpus(folder, environ)


def test_an_engine_is_a_server_of_its_own_that_ends_with_it(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(sequences=8, chunk=512, context=1024)) as engine:
            assert engine.capacity.sequences == 8
            assert engine.capacity.prefill_tokens == 1_024
            # Of 46,592 tokens in blocks of 128, eight requests may each waste 127.
            assert engine.capacity.kv_tokens == 46_592 - 8 * 127
            assert engine.capacity.context == 1_024
            assert isinstance(engine, VllmEngine)
            tokens = [token async for token in engine.generate(ask(max_tokens=4))]
            assert "".join(token.text for token in tokens) == "w0 w1 w2 w3 "
            assert tokens[-1].completion_tokens == 4
            assert all(alive(pid) for pid in fake.seen["pids"])
        await eventually(lambda: gone(*fake.seen["pids"]))

    run(body())


def test_the_key_is_in_no_command_line_and_everybody_needs_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "theirs")

    async def body() -> None:
        async with VllmBackend().open(fake.spec()):
            key = fake.seen["environment"]["SAGE_VLLM_KEY"]
            assert len(key) >= 32
            # The user's own, for a server of theirs, would shut us out.
            assert fake.seen["environment"]["VLLM_API_KEY"] == key
            for pid in fake.seen["pids"]:
                assert key not in words_of(pid)
            assert fake.seen["argv"][-4:-2] == ["--host", "127.0.0.1"]

    run(body())


def test_a_folder_on_disk_is_served_without_asking_a_hub(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(kv_cache="3GiB", cores="0-1")):
            said = fake.seen["environment"]
            assert said["HF_HUB_OFFLINE"] == said["VLLM_NO_USAGE_STATS"] == "1"
            assert said["VLLM_CPU_KVCACHE_SPACE"] == "3"
            assert said["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
            assert "SAGE_HOME" not in said
            assert "VLLM_SERVER_DEV_MODE" not in said

    run(body())


def test_a_server_that_dies_is_told_at_once_with_its_last_words(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec()) as engine:
            assert isinstance(engine, VllmEngine)
            watch = asyncio.create_task(engine.watch())
            async with aclosing(engine.generate(ask(max_tokens=1_000))) as stream:
                await anext(stream)
                os.kill(fake.seen["pids"][0], signal.SIGKILL)
                with pytest.raises(AttemptFailed):
                    async for _ in stream:
                        pass
            with pytest.raises(ModelError, match=r"(?s)vLLM ended: .*status -9.*all of it is in .*vllm-chat-1\.log"):
                await watch
            # What the server had started ends too.
            until(lambda: gone(fake.seen["pids"][1]))

    run(body())


def test_whoever_stops_waiting_leaves_no_server_behind(fake: Fake) -> None:
    async def body() -> None:
        opening = asyncio.create_task(VllmBackend().open(fake.spec(environment={"FAKE_VLLM": "hangs"})).__aenter__())
        await eventually(lambda: (fake.weights / "seen.json.txt").exists() and "starts" in fake.seen)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await eventually(lambda: gone(*fake.seen["pids"]))

    run(body())


def test_whoever_is_cancelled_while_the_process_is_made_ends_it(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        gpus = machine(tmp_path / "machine", 1)
        backend = VllmBackend(gpus)
        opening = asyncio.create_task(backend.open(fake.spec(needs={"gpu": 1})).__aenter__())
        # A thread has begun to make it.
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        # Nothing else may take the GPU while it lives.
        assert gpus.free() == ["0"]

    run(body())
    [log] = (tmp_path / "home" / "project" / "logs").iterdir()
    assert not [process for process in Path("/proc").glob("[0-9]*") if str(log) in words(process)]


def words(process: Path) -> str:
    """A process's command line, while it has one."""
    try:
        return (process / "cmdline").read_bytes().decode()
    except OSError:
        return ""


def test_a_killed_keeper_leaves_nothing_behind_either(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec()) as engine:
            assert isinstance(engine, VllmEngine)
            assert engine.process is not None
            watch = asyncio.create_task(engine.watch())
            await asyncio.sleep(0)
            os.kill(engine.process.pid, signal.SIGKILL)
            with pytest.raises(ModelError, match="vLLM ended"):
                await watch
        await eventually(lambda: gone(*fake.seen["pids"]))

    run(body())


def test_an_engine_that_closes_sleeps_and_the_next_one_wakes_it(fake: Fake) -> None:
    async def body() -> None:
        backend = VllmBackend()
        spec = fake.spec(sleep=1)
        async with backend.open(spec):
            assert "--enable-sleep-mode" in fake.seen["argv"]
            assert fake.seen["environment"]["VLLM_SERVER_DEV_MODE"] == "1"
        pids = fake.seen["pids"]
        assert all(alive(pid) for pid in pids)
        async with backend.open(spec) as engine:
            assert isinstance(engine, VllmEngine)
            assert [token async for token in engine.generate(ask(max_tokens=2))][-1].finish == "length"
        assert fake.seen["moves"] == "/sleep?level=1 /wake_up /sleep?level=1"
        assert fake.seen["starts"] == 1
        # Other settings need another server.
        async with backend.open(fake.spec(sleep=1, sequences=3)):
            assert fake.seen["starts"] == 2
        await backend.close()
        await eventually(lambda: gone(*pids, *fake.seen["pids"]))

    run(body())


def test_a_sleeper_that_cannot_be_woken_is_replaced(fake: Fake) -> None:
    async def body() -> None:
        backend = VllmBackend()
        async with backend.open(fake.spec(sleep=1)):
            pass
        os.kill(fake.seen["pids"][0], signal.SIGKILL)
        until(lambda: gone(fake.seen["pids"][1]))
        async with backend.open(fake.spec(sleep=1)):
            assert fake.seen["starts"] == 2
        await backend.close()

    run(body())


def test_a_sleeper_that_says_that_it_sleeps_on_is_replaced(fake: Fake) -> None:
    async def body() -> None:
        backend = VllmBackend()
        spec = fake.spec(sleep=1, environment={"FAKE_VLLM": "drowsy"})
        async with backend.open(spec):
            pass
        first = fake.seen["pids"]
        async with backend.open(spec):
            assert fake.seen["starts"] == 2
            await eventually(lambda: gone(*first))
        await backend.close()

    run(body())


def test_a_sleeper_ends_after_its_time(fake: Fake) -> None:
    async def body() -> None:
        backend = VllmBackend()
        async with backend.open(fake.spec(sleep=1, asleep=0.05)):
            pass
        await eventually(lambda: gone(*fake.seen["pids"]))
        await backend.close()

    run(body())


def test_an_engine_that_broke_does_not_go_to_sleep(fake: Fake) -> None:
    async def body() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            async with VllmBackend().open(fake.spec(sleep=1)):
                raise RuntimeError("broken")
        assert "moves" not in fake.seen
        await eventually(lambda: gone(*fake.seen["pids"]))

    run(body())


def test_engines_get_gpus_of_their_own_and_give_them_back(fake: Fake, tmp_path: Path) -> None:
    """The devices are files: no GPU is needed to see who is given which."""

    async def body() -> None:
        backend = VllmBackend(machine(tmp_path / "machine", 3))
        two = fake.spec(needs={"gpu": 2})
        async with backend.open(two):
            assert fake.seen["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"
            assert fake.seen["argv"][fake.seen["argv"].index("--tensor-parallel-size") + 1] == "2"
            async with backend.open(fake.spec("other", needs={"gpu": 1})):
                assert fake.seen["environment"]["CUDA_VISIBLE_DEVICES"] == "2"
                with pytest.raises(ModelError, match="it needs 2 GPUs; 0 of 3 here are free"):
                    async with backend.open(two):
                        pass
        async with backend.open(two):
            assert fake.seen["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"

    run(body())


def test_a_sleeper_whose_gpu_is_taken_is_replaced_on_another(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        backend = VllmBackend(machine(tmp_path / "machine", 2, CUDA_VISIBLE_DEVICES="5,7"))
        sleepy = fake.spec(needs={"gpu": 1}, sleep=1)
        async with backend.open(sleepy):
            assert fake.seen["environment"]["CUDA_VISIBLE_DEVICES"] == "5"
        async with backend.open(fake.spec("other", needs={"gpu": 1})), backend.open(sleepy):
            assert fake.seen["environment"]["CUDA_VISIBLE_DEVICES"] == "7"
            assert fake.seen["starts"] == 3
        await backend.close()

    run(body())


def test_the_cuda_build_needs_a_gpu(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        backend = VllmBackend(machine(tmp_path / "machine", 0))
        with pytest.raises(ModelError, match="it needs 1 GPU; 0 of 0 here are free"):
            async with backend.open(fake.spec(needs={"gpu": 1})):
                pass
        # One that it took without saying so, the node's ledger would give to a job as well.
        with pytest.raises(ModelError, match=r"CUDA build runs on GPUs, .* names none\n  help: needs = \{ gpu = 1 \}"):
            async with backend.open(fake.spec(build="cuda")):
                pass

    run(body())


def test_embeddings_come_from_the_pooling_runner(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(kinds=["embed"], dtype="float32")) as engine:
            assert isinstance(engine, VllmEngine)
            assert engine.kinds == ("embed",)
            assert engine.dimension == 2
            vectors = await engine.embed(["four", ""])
            assert vectors.tolist() == [[pytest.approx(4 / 17**0.5), pytest.approx(1 / 17**0.5)], [0.0, 1.0]]
            argv = fake.seen["argv"]
            assert argv[argv.index("--runner") + 1] == "pooling"

    run(body())


def test_a_running_server_is_adopted_and_left_running(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(context=1024)):
            pids, said = fake.seen["pids"], fake.seen["environment"]
            port = fake.seen["argv"][fake.seen["argv"].index("--port") + 1]
            adopted = ModelSpec(
                name="chat",
                backend="vllm",
                options={"base_url": f"http://127.0.0.1:{port}/v1", "api_key": said["SAGE_VLLM_KEY"]},
            )
            async with VllmBackend().open(adopted) as engine:
                assert isinstance(engine, VllmEngine)
                assert engine.capacity.context == 4_096
                assert [token async for token in engine.generate(ask(max_tokens=2))][-1].completion_tokens == 2
            assert fake.seen["starts"] == 1
            assert all(alive(pid) for pid in pids)

    run(body())
