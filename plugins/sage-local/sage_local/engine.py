"""The engine: llama.cpp's own scheduler in this process, one thread per request that waits for its tokens."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
import urllib.request
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp  # type: ignore[import-untyped]  # ships neither stubs nor py.typed

from sage_core import Capacity, InvalidRequest, Kind, ModelError, Request, Token
from sage_local.weights import Options, Weights

#: A callback's answer to llama.cpp: give this request up.
_STOP = True


class LlamaEngine:
    """Streams answers under the model's own chat template."""

    kinds: tuple[Kind, ...] = ("generate", "tokenize")
    dimension = 0

    def __init__(self, name: str, weights: Weights, options: Options) -> None:
        self._name = name
        self._options = options
        # llama.cpp always listens on a loopback port; without the key nobody else can use it.
        self._key = secrets.token_urlsafe(24)
        self._server = _serve(name, weights, options, self._key)
        self._threads = ThreadPoolExecutor(max_workers=options.parallel, thread_name_prefix=f"llama-{name}")
        self._gone: set[threading.Event] = set()

    @property
    def capacity(self) -> Capacity:
        return Capacity(sequences=self._options.parallel, context=self._options.context)

    async def generate(self, request: Request) -> AsyncGenerator[Token, None]:
        gone = threading.Event()
        self._gone.add(gone)
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def put(chunk: dict[str, Any] | None) -> None:
            # A loop that has been closed has no one left to read.
            if not loop.is_closed():
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        work = loop.run_in_executor(self._threads, self._ask, _body(request), put, gone)
        # The queue ends in every case, so an error of the thread is met at `await work`.
        work.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            finish = ""
            while (chunk := await chunks.get()) is not None:
                if "error" in chunk:
                    raise _refusal(self._name, chunk["error"])
                for choice in chunk["choices"]:
                    finish = choice.get("finish_reason") or finish
                    # A continued text comes as it is, an answer as what it adds.
                    if text := choice.get("text") or choice.get("delta", {}).get("content"):
                        yield Token(text=text)
                if usage := chunk.get("usage"):
                    yield Token(
                        finish=finish or "stop",
                        prompt_tokens=usage["prompt_tokens"],
                        completion_tokens=usage["completion_tokens"],
                    )
            await work
            if gone.is_set():
                raise ModelError(self._name, "the engine was closed while it answered", "send the request again")
        except ValueError as error:
            raise InvalidRequest(self._name, f"the request cannot be used: {error}") from error
        finally:
            gone.set()
            self._gone.discard(gone)
            work.cancel()

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return await asyncio.to_thread(lambda: [self._spans(text) for text in texts])

    def close(self) -> None:
        """Give every running request up and free the model."""
        for gone in list(self._gone):
            gone.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        # Dropping the last reference stops llama.cpp's threads and frees its memory.
        del self._server

    def _ask(self, body: Mapping[str, object], put: Callable[[dict[str, Any]], None], gone: threading.Event) -> None:
        def receive(chunk: dict[str, Any]) -> bool:
            if gone.is_set():
                return _STOP
            put(chunk)
            return not _STOP

        if not gone.is_set():
            ask = self._server.handle_completions if "prompt" in body else self._server.handle_chat_completions
            ask(body, receive)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        question = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            data=json.dumps({"content": text, "with_pieces": True}).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {self._key}"},
        )
        # A proxy that the environment names is not for this process's own port.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(question) as answer:
            pieces = [token["piece"] for token in json.load(answer)["tokens"]]
        return spans(text, [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces])


def spans(text: str, pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """Turn consecutive byte pieces into character spans; a token that ends inside a character covers it whole.

    Some vocabularies put a space before the text, which is no part of it.
    """
    starts: list[int] = []  # starts[byte] = the character it belongs to
    for number, character in enumerate(text):
        starts.extend([number] * len(character.encode()))
    result: list[tuple[int, int]] = []
    end = -1 if b"".join(pieces) == b" " + text.encode() else 0
    for piece in pieces:
        start, end = max(end, 0), min(end + len(piece), len(starts))
        if end > start:
            result.append((starts[start], starts[end - 1] + 1))
    return result


def _serve(name: str, weights: Weights, options: Options, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(weights.model)
    params.n_ctx = options.context * options.parallel
    params.n_parallel = options.parallel
    # llama.cpp's threads wait for one another at every layer: where another process takes one core of all, decoding
    # falls to a tenth. One core left free costs a third on two cores and next to nothing on many.
    threads = options.threads or max(1, len(os.sched_getaffinity(0)) - 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.api_keys = [key]
    params.ui = False
    # Finished prompts are kept for reuse, by default in up to 8 GiB; prompts of a workflow seldom return.
    params.cache_ram_mib = 128
    # The files are there and fit is our business: llama.cpp need not look for a hub or a device.
    params.offline = True
    params.fit_params = False
    params.verbosity = -1
    params.endpoint_metrics = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelError(
            name, f"llama.cpp cannot load {weights.model}: {error}", "is the file complete, and its architecture known?"
        ) from error
    # Answered by llama.cpp's own loop, so it runs from here on: a server that is freed before it does never ends, and
    # keeps every thread of this process waiting.
    server.handle_metrics()
    return server


def _body(request: Request) -> dict[str, object]:
    body: dict[str, object] = {
        **({"prompt": request.prompt} if request.prompt else {"messages": list(request.messages)}),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.schema, "strict": True},
        }
    return body


def _refusal(name: str, error: Mapping[str, Any]) -> ModelError:
    if error.get("type") == "exceed_context_size_error":
        tokens, context = error.get("n_prompt_tokens"), error.get("n_ctx")
        return InvalidRequest(
            name,
            f"the prompt has {tokens} tokens, one request may use {context}",
            f"shorten it, or set context = N in [models.{name}]",
            "context_length_exceeded",
        )
    if int(error.get("code") or 400) >= 500:
        return ModelError(name, f"llama.cpp failed: {error.get('message', error)}")
    return InvalidRequest(name, f"the request was refused: {error.get('message', error)}")
