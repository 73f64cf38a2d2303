"""One side of the suite `embedding`: ``python -m sage_bench.embedders SIDE FOLDER THREADS`` embeds what it is told to.

It answers one JSON line a line: ``{}`` when the model is loaded, then for each order how long it took and one vector.
The scripts of other software in `sage_bench.peers` speak the same, without importing this.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy

from sage_bench.home import clean_environment
from sage_core import ModelSpec, SageError, find_paths
from sage_core.builtins import default_host
from sage_core.kernel.control_plane.client import UnifiedInferenceClient

#: An order, and what it came to.
Order: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]


def parts(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """The requests that clients make of the texts."""
    return [texts[at : at + size] for at in range(0, len(texts), size)]


class Bare:
    """ONNX Runtime and the tokenizer in a loop over ideal buckets: the whole order sorted by length beforehand."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - no other side needs it here
        from tokenizers import Tokenizer  # noqa: PLC0415 - as above

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), settings, providers=["CPUExecutionProvider"]
        )
        self._inputs = [put.name for put in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def obey(self, order: Order) -> Answer:
        """Embed the texts in batches of at most `budget` padded tokens."""
        texts, budget = order["texts"], order["budget"]
        began, cpu = time.perf_counter(), time.process_time()
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        order_of = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        vectors: Any = None
        while order_of:
            width = len(rows[order_of[0]])
            count = max(1, budget // width)
            places, order_of = order_of[:count], order_of[count:]
            ids = numpy.zeros((len(places), width), numpy.int64)
            mask = numpy.zeros((len(places), width), numpy.int64)
            for row, place in enumerate(places):
                ids[row, : len(rows[place])] = rows[place]
                mask[row, : len(rows[place])] = 1
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
            found = self._session.run(None, {name: feeds[name] for name in self._inputs})[0]
            pooled = (found * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
            if vectors is None:
                vectors = numpy.zeros((len(texts), pooled.shape[1]), numpy.float32)
            vectors[places] = pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu": time.process_time() - cpu, "vector": vectors[0].tolist()}


async def clients(
    order: Order, ask: Callable[[Sequence[str]], Awaitable[Any]], cpu: Callable[[], float] = time.process_time
) -> Answer:
    """Let the order's clients make one request after another until all texts are embedded.

    `cpu` says how many processor seconds the side has used so far.
    """
    requests = parts(order["texts"], order["request"])
    left = iter(enumerate(requests))
    found: dict[int, Any] = {}

    async def one() -> None:
        for number, texts in left:
            found[number] = await ask(texts)

    began, used = time.perf_counter(), cpu()
    await asyncio.gather(*(one() for _ in range(order["clients"])))
    seconds, used = time.perf_counter() - began, cpu() - used
    if len(found) != len(requests):
        raise SageError(f"of {len(requests)} requests, {len(found)} were answered")
    return {"seconds": seconds, "cpu": used, "vector": [float(value) for value in found[0][0]]}


async def inline(folder: Path, threads: int) -> None:
    """The control plane in this process, as an inline run has it."""
    spec = ModelSpec(name="bench", backend="onnx", source=str(folder), options={"threads": threads})
    with tempfile.TemporaryDirectory() as home:
        paths = find_paths(Path(home))
        async with UnifiedInferenceClient.create(
            {"bench": spec}, paths=paths, host=default_host(), inline=True
        ) as client:
            await client.embed("bench", ["ready"])
            await serve(lambda order: clients(order, lambda texts: client.embed("bench", texts)))


async def gateway(folder: Path, threads: int) -> None:
    """`sage serve` in a process of its own, asked over HTTP as OpenAI's client does: vectors in base64."""
    with serving(folder, threads) as (port, pid), ThreadPoolExecutor(64) as pool:
        connections: dict[int, http.client.HTTPConnection] = {}

        def post(texts: Sequence[str]) -> Any:
            import threading  # noqa: PLC0415 - of this side only

            me = threading.get_ident()
            connection = connections.get(me)
            if connection is None:
                connection = connections[me] = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            body = json.dumps({"model": "bench", "input": list(texts), "encoding_format": "base64"})
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise SageError(f"the gateway answered {answer.status}: {data[:300]!r}")
            rows = json.loads(data)["data"]
            return [numpy.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]

        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, post, ["ready"])
        await serve(
            lambda order: clients(order, lambda texts: loop.run_in_executor(pool, post, texts), lambda: processor(pid))
        )


@contextmanager
def serving(folder: Path, threads: int) -> Iterator[tuple[int, int]]:
    """A gateway with the model, until the block is left; yields its port and its process id."""
    import socket  # noqa: PLC0415 - of this side only

    with tempfile.TemporaryDirectory() as project, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        probe.close()
        # A client keeps its connection while others have their turns, for longer than a gateway likes.
        text = f'[gateway]\nidle = "1h"\n[models.bench]\nbackend = "onnx"\nsource = "{folder}"\nthreads = {threads}\n'
        (Path(project) / "sage.toml").write_text(text, encoding="utf-8")
        environ = {**clean_environment(), "SAGE_HOME": str(Path(project) / "home")}
        command = [str(Path(sys.executable).with_name("sage")), "serve", "--port", str(port)]
        with open(Path(project) / "log", "wb") as log:
            server = subprocess.Popen(command, cwd=project, env=environ, stdout=log, stderr=log)
        try:
            _await(port, server, Path(project) / "log")
            yield port, server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def processor(pid: int) -> float:
    """Processor seconds that a process has used so far, by Linux's account of it; 0 elsewhere."""
    file = Path(f"/proc/{pid}/stat")
    if not file.exists():
        return 0.0
    fields = file.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if server.poll() is not None:
            raise SageError(f"sage serve ended: {log.read_text(encoding='utf-8')[-500:]}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise SageError("sage serve does not answer")


async def serve(obey: Callable[[Order], Awaitable[Answer]]) -> None:
    """Answer orders until there are no more."""
    say({})
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(await obey(json.loads(line)))


def say(answer: Answer) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(side: str, folder: str, threads: str) -> None:
    """Be one side."""
    count = int(threads) or len(os.sched_getaffinity(0))
    if side == "bare":
        bare = Bare(Path(folder), count)
        say({})
        while line := sys.stdin.readline():
            say(bare.obey(json.loads(line)))
    elif side == "inline":
        asyncio.run(inline(Path(folder), count))
    else:
        asyncio.run(gateway(Path(folder), count))


if __name__ == "__main__":
    main(*sys.argv[1:])
