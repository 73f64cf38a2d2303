"""A client's link to a running gateway: requests go over HTTP, as those of any OpenAI client do."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core.common.clock import MILLISECOND
from sage_core.common.errors import ModelError, NoEngine, RequestRejected, SageError, UsageError
from sage_core.common.records import Caller, Capacity, EngineInfo, ModelSpec, Request, Token

if TYPE_CHECKING:
    import aiohttp
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

#: Texts in one request, and seconds to reach the gateway.
MOST_TEXTS, CONNECT = 2_048, 10.0
#: How a field of `Caller` is sent: run, step and worker, so that a decision can name them.
_NAMED = {"x-sage-run": "run", "x-sage-step": "step", "x-sage-worker": "worker", "x-sage-class": "service_class"}
_SLOS = {"x-sage-slo-e2e-ms": "remaining", "x-sage-slo-ttft-ms": "ttft", "x-sage-slo-tpot-ms": "tpot"}


class GatewayLink:
    """Carries requests to a gateway; an async context manager that connects with the first request.

    Args:
        url: where it is, with or without ``/v1``.
        key: its API key, or empty where it takes any.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> GatewayLink:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, request: Request, spec: ModelSpec, *, about: bool = False) -> Any:
        """The answer to any request but a stream; `about` asks only whether the model is served."""
        if about:
            await self._json(request, "GET", f"/v1/models/{request.model}")
            return EngineInfo(
                id=self.url, model=request.model, backend="gateway", kinds=("generate", "embed", "rerank", "tokenize"),
                capacity=Capacity(), identity="",
            )  # fmt: skip
        if request.kind == "embed":
            return await self._embed(request)
        if request.kind == "rerank":
            body = {"query": request.texts[0], "documents": list(request.texts[1:])}
            answer = await self._json(request, "POST", "/v1/rerank", body)
            scores = {result["index"]: float(result["relevance_score"]) for result in answer["results"]}
            return [scores[index] for index in range(len(request.texts) - 1)]
        found: list[list[tuple[int, int]]] = []
        for texts in _slices(request.texts):
            answer = await self._json(request, "POST", "/sage/v1/tokenize", {"input": texts})
            found += [[(start, end) for start, end in each["spans"]] for each in answer["data"]]
        return found

    async def generate(self, request: Request, spec: ModelSpec) -> AsyncIterator[Token]:
        """Stream the answer; closing the iterator closes the connection, which cancels the request."""
        path = "/v1/completions" if request.prompt else "/v1/chat/completions"
        finish = ""
        usage: dict[str, int] = {}
        async with self._sent(request, "POST", path, _body_of(request)) as response:
            async for event in _events(response):
                if event == b"[DONE]":
                    break
                said: dict[str, Any] = msgspec.json.decode(event)
                if "error" in said:
                    raise ModelError(request.model, str(said["error"].get("message", said["error"])))
                usage = said.get("usage") or usage
                for choice in said.get("choices", ()):
                    text = choice["text"] if request.prompt else choice["delta"].get("content")
                    finish = choice.get("finish_reason") or finish
                    if text:
                        yield Token(text=text)
            else:
                finish = ""
        if not finish:
            raise ModelError(request.model, f"the gateway at {self.url} ended the answer before its end")
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        yield Token(finish=finish, prompt_tokens=read, completion_tokens=written)

    async def _embed(self, request: Request) -> Floats:
        import numpy  # noqa: PLC0415 - a client that never embeds must not pay for it

        rows: list[Any] = []
        for texts in _slices(request.texts):
            answer = await self._json(request, "POST", "/v1/embeddings", {"input": texts, "encoding_format": "base64"})
            data = sorted(answer["data"], key=lambda each: int(each["index"]))
            rows += [numpy.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data]
        return numpy.array(rows, numpy.float32) if rows else numpy.zeros((0, 0), numpy.float32)

    async def _json(self, request: Request, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        async with self._sent(request, method, path, body) as response:
            return msgspec.json.decode(await response.read())

    @asynccontextmanager
    async def _sent(
        self, request: Request, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; raises what the gateway has against it, or what went wrong on the way."""
        session = self._session or await self._connect()
        data = None if body is None else _encoded({"model": request.model, **body})
        broken: tuple[type[Exception], ...] = (*self._broken, OSError, TimeoutError, msgspec.MsgspecError, KeyError)
        try:
            async with session.request(
                method, self.url + path, data=data, headers=_headers(request.caller)
            ) as response:
                if response.status >= 400:
                    raise self._refusal(request.model, response.status, response.headers, await response.read())
                yield response
        except broken as error:
            what = f"the gateway at {self.url} cannot be used: {type(error).__name__}: {error}"
            raise ModelError(request.model, what, "is `sage serve` running there?") from None

    async def _connect(self) -> aiohttp.ClientSession:
        try:
            import aiohttp  # noqa: PLC0415 - only who uses a gateway needs it, and it takes 200 ms
        except ImportError:
            raise UsageError(
                f"a gateway is configured ({self.url}), and aiohttp, which reaches it, is not installed",
                "pip install 'sage-core[gateway]', or unset SAGE_GATEWAY_URL and [gateway] url",
            ) from None
        self._broken: tuple[type[Exception], ...] = (aiohttp.ClientError,)
        # Who limits the requests in flight is the control plane, and not the connection pool.
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)
        self._session = await self._stack.enter_async_context(session)
        return session

    def _refusal(self, model: str, status: int, headers: Mapping[str, str], body: bytes) -> SageError:
        try:
            message = str(msgspec.json.decode(body)["error"]["message"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            message = f"HTTP status {status}"
        try:
            later: float | None = float(headers["retry-after"])
        except (KeyError, ValueError):
            later = None
        if status == 429:
            return RequestRejected(message, later)
        if status == 503:
            return NoEngine(model, message, later)
        if status in (401, 403):
            return ModelError(model, f"the gateway at {self.url} refuses the key: {message}", "set SAGE_GATEWAY_KEY")
        return ModelError(model, f"the gateway at {self.url} says: {message}")


def _slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + MOST_TEXTS] for start in range(0, len(texts), MOST_TEXTS))


def _body_of(request: Request) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {"messages": request.messages}
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": True}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stop:
        asked["stop"] = request.stop
    if request.seed is not None:
        asked["seed"] = request.seed
    asked |= {"max_tokens": request.max_tokens, "temperature": request.temperature}
    return {**asked, "stream": True, "stream_options": {"include_usage": True}}


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError(f"a text cannot be sent to a model: {error}", "it holds half of a surrogate pair") from None


def _headers(caller: Caller) -> dict[str, str]:
    headers = {name: getattr(caller, field) for name, field in _NAMED.items() if getattr(caller, field)}
    if caller.priority:
        headers["x-sage-priority"] = str(caller.priority)
    for name, field in _SLOS.items():
        nanoseconds = getattr(caller, field)
        if nanoseconds is not None:
            headers[name] = f"{max(1.0, nanoseconds / MILLISECOND):.3f}"
    return headers


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of server-sent events, one line each, as every server of this protocol writes them."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
