"""`UnifiedInferenceClient`: the one way to a model, in this process, in the engine host or behind a gateway."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.common.config import Config
from sage_core.common.errors import ModelError, UsageError, suggest
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller, EngineInfo, ModelSpec, Request, Token
from sage_core.kernel.control_plane.gateway_link import GatewayLink
from sage_core.kernel.control_plane.inline import inline_driver
from sage_core.kernel.control_plane.remote import EngineHostLink

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]


class Transport(Protocol):
    """What carries requests: a driver in this process, or a link to the engine host or to a gateway."""

    async def ask(self, request: Request, spec: ModelSpec, *, about: bool = False) -> Any: ...

    def generate(self, request: Request, spec: ModelSpec) -> AsyncIterator[Token]: ...


class _Shared:
    """What a client and its bound views have in common."""

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        self.models = models
        self.prefix = f"{os.getpid():x}-{uuid.uuid4().hex[:8]}"
        self.numbers = itertools.count(1)
        self.transport: Transport | None = None


class BoundClient:
    """An `InferenceClient` whose requests carry one caller.

    Args:
        until: monotonic ns by which its requests are to be answered; None means whenever.
    """

    def __init__(self, shared: _Shared, caller: Caller, until: int | None = None) -> None:
        self._shared = shared
        self.caller = caller
        self.until = until

    def bound(
        self,
        caller: Caller | None = None,
        *,
        deadline: float | None = None,
        ttft: float | None = None,
        tpot: float | None = None,
        **fields: Any,
    ) -> BoundClient:
        """A view with another caller, or with some of this one's fields replaced; costs no connection.

        Args:
            deadline: seconds from now in which all its requests are to be answered.
            ttft: seconds to the first token of each.
            tpot: seconds between their tokens.
        """
        for name, seconds in (("ttft", ttft), ("tpot", tpot)):
            if seconds is not None:
                fields[name] = round(seconds * SECOND)
        until = self.until if deadline is None else time.monotonic_ns() + round(deadline * SECOND)
        return BoundClient(self._shared, msgspec.structs.replace(caller or self.caller, **fields), until)

    async def embed(self, model: str, texts: Sequence[str]) -> Floats:
        """Float32 of shape ``(len(texts), dimension)``, L2-normalised."""
        spec = self._spec(model)
        request = self._request(model, "embed", texts=tuple(texts))
        vectors: Floats = await self._transport.ask(request, spec)
        return vectors

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        schema: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Token]:
        """Stream the answer to a conversation; closing the iterator cancels it everywhere."""
        spec = self._spec(model)
        request = self._request(
            model,
            "generate",
            messages=tuple(dict(message) for message in messages),
            max_tokens=max_tokens,
            temperature=temperature,
            stop=tuple(stop),
            seed=seed,
            schema=None if schema is None else dict(schema),
        )
        return self._transport.generate(request, spec)

    #: What an `InferenceClient` calls it.
    generate = chat

    def completion(
        self,
        model: str,
        prompt: str,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> AsyncIterator[Token]:
        """Stream a text's continuation; closing the iterator cancels it everywhere."""
        spec = self._spec(model)
        request = self._request(
            model,
            "generate",
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            stop=tuple(stop),
            seed=seed,
        )
        return self._transport.generate(request, spec)

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[float]:
        """One score per document, in order; larger is more relevant."""
        spec = self._spec(model)
        if not documents:
            return []
        request = self._request(model, "rerank", texts=(query, *documents))
        scores: list[float] = await self._transport.ask(request, spec)
        return scores

    async def tokenize(self, model: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Character spans of each text's tokens under the model's tokenizer."""
        spec = self._spec(model)
        if not texts:
            return []
        request = self._request(model, "tokenize", texts=tuple(texts))
        spans: list[list[tuple[int, int]]] = await self._transport.ask(request, spec)
        return spans

    async def info(self, model: str) -> EngineInfo:
        """What serves the model; loads it if nothing does yet."""
        spec = self._spec(model)
        info: EngineInfo = await self._transport.ask(self._request(model, "tokenize"), spec, about=True)
        return info

    @property
    def _transport(self) -> Transport:
        if self._shared.transport is None:
            raise UsageError("the inference client is not open", "use it inside: async with client")
        return self._shared.transport

    def _request(self, model: str, kind: Any, **fields: Any) -> Request:
        number = next(self._shared.numbers)
        caller = self.caller
        if self.until is not None:
            # Whoever is late already is in a hurry, and not without a deadline.
            remaining = max(MILLISECOND, self.until - time.monotonic_ns())
            caller = msgspec.structs.replace(caller, remaining=remaining)
        return Request(id=f"{self._shared.prefix}-{number}", kind=kind, model=model, caller=caller, **fields)

    def _spec(self, model: str) -> ModelSpec:
        try:
            return self._shared.models[model]
        except KeyError:
            if isinstance(self._shared.transport, GatewayLink):
                # What is served there, the gateway knows.
                return ModelSpec(name=model, backend="gateway")
            known = sorted(self._shared.models)
            raise ModelError(
                model,
                f"no model has this name.{suggest(model, known)} Known: {', '.join(known) or 'none'}.",
                f'add [models.{model}] with backend = "…" to the workflow or sage.toml, or: sage models add {model}',
            ) from None


class UnifiedInferenceClient(BoundClient):
    """The client a process makes once, by `create`; an async context manager."""

    def __init__(
        self, shared: _Shared, caller: Caller, *, paths: Paths, host: Host | None, config: Config, inline: bool
    ) -> None:
        super().__init__(shared, caller)
        self._paths = paths
        self._host = host
        self._config = config
        self._inline = inline
        self._stack = AsyncExitStack()

    @classmethod
    def create(
        cls,
        models: Mapping[str, ModelSpec],
        *,
        paths: Paths,
        caller: Caller = Caller(),
        host: Host | None = None,
        config: Config | None = None,
        inline: bool = False,
    ) -> UnifiedInferenceClient:
        """Describe a client; entering it costs next to nothing, its first request connects.

        Args:
            models: every model that may be asked for, by name.
            paths: where the socket and the decision log are.
            caller: whom the requests are for; `bound` refines it.
            host: the plugins; None loads the installed ones, without the defaults.
            config: sage.toml; None means its defaults. ``[gateway] url``, or SAGE_GATEWAY_URL before it, sends every
                request to a running gateway, with SAGE_GATEWAY_KEY as the key.
            inline: run control plane and engines on this process's event loop instead of the engine host.
        """
        return cls(_Shared(models), caller, paths=paths, host=host, config=config or Config(), inline=inline)

    async def __aenter__(self) -> UnifiedInferenceClient:
        host = Host() if self._host is None else self._host
        gateway = os.environ.get("SAGE_GATEWAY_URL") or self._config.gateway.get("url")
        if gateway:
            over = GatewayLink(str(gateway), os.environ.get("SAGE_GATEWAY_KEY", ""))
            self._shared.transport = await self._stack.enter_async_context(over)
        elif self._inline:
            driver = inline_driver(host, self._config, self._paths)
            self._shared.transport = await self._stack.enter_async_context(driver)
        else:
            link = EngineHostLink(self._shared.models, self._paths, host, worker=self.caller.worker)
            self._shared.transport = await self._stack.enter_async_context(link)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shared.transport = None
        await self._stack.aclose()
