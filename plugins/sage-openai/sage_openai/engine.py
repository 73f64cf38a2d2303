"""The engine: passes a client's own request on, or writes one from SAGE's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core import AttemptFailed, Capacity, Chunk, InvalidRequest, Kind, ModelError, ModelSpec, Request, Token
from sage_openai.events import DONE, PIECE, Events, Piece, Tail, begins, usage_of
from sage_openai.options import Options, served_name
from sage_openai.server import Server

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

#: A client's request with every value but the model's as it was written.
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: Where a server does not say how long a prompt may be.
_CONTEXT = 8_192


class _Model(msgspec.Struct):
    id: str = ""
    #: Said by vLLM.
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Embedded(msgspec.Struct):
    data: list[_Row]


class _Scored(msgspec.Struct):
    index: int
    relevance_score: float


class _Reranked(msgspec.Struct):
    results: list[_Scored]


class OpenAIEngine:
    """One server as an engine."""

    def __init__(self, model: ModelSpec, options: Options, server: Server) -> None:
        self._name = model.name
        self._options = options
        self._server = server
        self._served = served_name(model, options)
        self._context = options.context or _CONTEXT
        self.kinds: tuple[Kind, ...] = options.kinds
        self.dimension = 0

    @property
    def capacity(self) -> Capacity:
        options = self._options
        return Capacity(
            sequences=options.sequences,
            batch_tokens=options.batch_tokens,
            batch_rows=options.batch_rows,
            context=self._context,
            prefill_tokens=options.prefill_tokens,
            kv_tokens=options.kv_tokens,
        )

    async def ask_about_itself(self) -> None:
        """Find out whether the server is there, serves the model, and what it says about it; raises `ModelError`."""
        server, name = self._server, self._name
        try:
            status, body = await server.models()
        except AttemptFailed as error:
            raise ModelError(name, error.args[1], "start the server, or mend base_url") from None
        if status in (401, 403):
            raise ModelError(name, f"the server at {server.url} refuses the key (status {status})", "check api_key")
        if status >= 500:
            raise ModelError(name, f"the server at {server.url} is ill: status {status}", "look at its log")
        if status == 200 and self._options.check:
            self._compare(body)
        if "embed" in self.kinds:
            self.dimension = int((await self.embed(["dimension"])).shape[1])

    async def watch(self) -> None:
        """Look after the server while it is silent."""
        await self._server.watch()

    def _compare(self, body: bytes) -> None:
        try:
            known = {model.id: model for model in msgspec.json.decode(body, type=_Models).data}
        except (msgspec.MsgspecError, UnicodeDecodeError):
            problem = f"{self._server.url}/models answers with something else than a list of models"
            raise ModelError(
                self._name, problem, "base_url usually ends in /v1; check = false asks for no list"
            ) from None
        if known and self._served not in known:
            some = ", ".join(sorted(known)[:10])
            help = f'it has: {some}; write model = "…"; check = false asks for no list'
            raise ModelError(self._name, f"the server at {self._server.url} has no model {self._served!r}", help)
        said = known[self._served].max_model_len if known else None
        self._context = self._options.context or said or _CONTEXT

    # ------------------------------------------------------------ a client's own request

    async def forward(self, request: Request) -> AsyncGenerator[Chunk]:
        path = request.path.removeprefix("/v1")
        with await self._server.post(path, self._addressed(request)) as answer:
            if not answer.streams:
                data = await answer.whole()
                yield self._whole(answer.status, answer.content_type, data)
                return
            tail, written, first, told = Tail(), 0, True, False
            while data := await answer.piece():
                if first and not begins(data):
                    raise self._server.failed("its stream does not begin like one of events")
                tail.add(data)
                tokens = data.count(b"data:")
                written += tokens
                first = False
                if data.endswith(b"[DONE]\n\n"):
                    told = True
                    yield self._last(answer.status, answer.content_type, data, tail, written - 1)
                else:
                    yield Chunk(data=data, status=answer.status, content_type=answer.content_type, tokens=tokens)
            if not tail.ended:
                raise self._server.failed("its stream ended in the middle")
            if not told:
                yield self._last(answer.status, answer.content_type, b"", tail, written - 1)

    def _addressed(self, request: Request) -> bytes:
        """The client's JSON with the name the server knows the model by."""
        if self._served == self._name:
            return request.body
        try:
            fields = _FIELDS.decode(request.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequest(self._name, f"the request is no JSON object: {error}") from None
        fields["model"] = msgspec.Raw(msgspec.json.encode(self._served))
        return msgspec.json.encode(fields)

    def _whole(self, status: int, content_type: str, data: bytes) -> Chunk:
        if status >= 400:
            return Chunk(data=data, status=status, content_type=content_type or "application/json")
        try:
            usage = usage_of(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._server.failed(f"its answer is no JSON ({content_type or 'without a type'})") from None
        return Chunk(
            data=data,
            status=status,
            content_type=content_type or "application/json",
            tokens=usage.written,
            prompt_tokens=usage.read,
            completion_tokens=usage.written,
            cached_tokens=usage.cached,
        )

    def _last(self, status: int, content_type: str, data: bytes, tail: Tail, written: int) -> Chunk:
        usage = tail.usage()
        return Chunk(
            data=data,
            status=status,
            content_type=content_type,
            tokens=max(0, data.count(b"data:") - 1),
            prompt_tokens=usage.read,
            completion_tokens=usage.written or max(0, written),
            cached_tokens=usage.cached,
        )

    # ------------------------------------------------------------ SAGE's own requests

    async def generate(self, request: Request) -> AsyncGenerator[Token]:
        path = "/completions" if request.prompt else "/chat/completions"
        finish, counts, written = "", None, 0
        events = Events()
        with await self._server.post(path, msgspec.json.encode(self._asked(request))) as answer:
            if not answer.streams:
                raise self._refusal(answer.status, await answer.whole())
            while data := await answer.piece():
                for event in events.feed(data):
                    if event == DONE:
                        continue
                    piece = self._read(event)
                    finish = piece.finish or finish
                    counts = piece.usage or counts
                    if text := piece.text:
                        written += 1
                        yield Token(text=text)
        if not finish or events.half:
            raise self._server.failed("its stream ended in the middle")
        yield Token(
            finish=finish,
            prompt_tokens=counts.read if counts else 0,
            completion_tokens=counts.written if counts else written,
        )

    def _asked(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._served,
            **({"prompt": request.prompt} if request.prompt else {"messages": request.messages}),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            body["stop"] = request.stop
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            schema = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, **self._options.extra}

    def _read(self, event: bytes) -> Piece:
        try:
            piece = PIECE.decode(event)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._server.failed("it sent an event that is no part of an answer") from None
        if piece.error is not None:
            raise self._refusal(500, event)
        return piece

    def _refusal(self, status: int, data: bytes) -> Exception:
        said = self._server.said(data)
        if status >= 500 or status < 300:
            return self._server.failed(f"no stream came: {said}")
        return InvalidRequest(self._name, f"the server refused the request: {said}")

    async def embed(self, texts: Sequence[str]) -> Floats:
        import numpy  # noqa: PLC0415 - an engine that only writes does without it

        if not texts:
            return numpy.zeros((0, self.dimension), numpy.float32)
        body = {"model": self._served, "input": texts, "encoding_format": "base64", **self._options.extra}
        rows = (await self._server.ask("/embeddings", body, _Embedded)).data
        if sorted(row.index for row in rows) != list(range(len(texts))):
            raise self._server.failed(f"it answered {len(texts)} texts with {len(rows)} vectors")
        try:
            vectors = [numpy.asarray(_floats(row.embedding), numpy.float32) for row in rows]
            matrix = numpy.empty((len(texts), vectors[0].shape[0]), numpy.float32)
            for row, vector in zip(rows, vectors, strict=True):
                matrix[row.index] = vector
        except (ValueError, binascii.Error) as error:
            raise self._server.failed(f"its vectors cannot be read: {error}") from None
        lengths = numpy.linalg.norm(matrix, axis=1, keepdims=True)
        if self.dimension not in (0, matrix.shape[1]) or not numpy.isfinite(lengths).all():
            raise self._server.failed(f"its vectors have {matrix.shape[1]} components, or some that are no numbers")
        matrix /= numpy.maximum(lengths, numpy.float32(1e-12))
        return matrix

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        if not documents:
            return []
        body = {"model": self._served, "query": query, "documents": documents, **self._options.extra}
        results = (await self._server.ask("/rerank", body, _Reranked)).results
        if sorted(result.index for result in results) != list(range(len(documents))):
            raise self._server.failed(f"it answered {len(documents)} documents with {len(results)} scores")
        return [result.relevance_score for result in sorted(results, key=lambda result: result.index)]


def _floats(embedding: str | list[float]) -> Any:
    import numpy  # noqa: PLC0415 - as above

    if isinstance(embedding, str):
        return numpy.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return embedding
