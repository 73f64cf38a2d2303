"""What ``[models.NAME]`` says about a server, checked before anything is sent to it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from sage_core import Kind, ModelError, ModelSpec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys ``[models.NAME]`` may hold beside those of every model."""

    #: Where the server's paths begin: ``http://host:8000/v1``.
    base_url: str = ""
    #: What the server calls the model; empty means `source`, or else SAGE's own name.
    model: str = ""
    #: Sent as a bearer token; write ``${secret.NAME}``.
    api_key: str = ""
    #: More headers of every request.
    headers: dict[str, str] = {}
    #: What it serves.
    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)] = ("generate",)
    #: Requests it is sent at the same time.
    sequences: Annotated[int, msgspec.Meta(ge=1)] = 32
    #: Longest prompt and answer in tokens; 0 asks the server, and takes 8,192 where it does not say.
    context: Count = 0
    prefill_tokens: Count = 0
    kv_tokens: Count = 0
    #: Padded tokens and rows of one request for embeddings.
    batch_tokens: Annotated[int, msgspec.Meta(ge=1)] = 16_384
    batch_rows: Annotated[int, msgspec.Meta(ge=1)] = 256
    price: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    #: Seconds until the first byte of an answer, and between two pieces of it.
    timeout: Seconds = 600.0
    stall: Seconds = 60.0
    #: Seconds without a byte from the server after which it is asked whether it lives; 0 never asks.
    health: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    #: Hold the model's name against the server's list when the engine opens.
    check: bool = True
    #: Fields added to the requests that SAGE itself writes, for what a server knows beside OpenAI's.
    extra: dict[str, Any] = {}


def read_options(spec: ModelSpec) -> Options:
    """Check a model's options."""
    try:
        options = msgspec.convert(spec.options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        problem = f"the options are wrong: {str(error).replace('`', chr(39))}"
        raise ModelError(spec.name, problem, f"the backend 'openai' knows: {known}") from None
    url = urlsplit(options.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        problem = f"base_url {options.base_url!r} is no http address" if options.base_url else "it has no base_url"
        raise ModelError(spec.name, problem, 'write base_url = "http://HOST:PORT/v1"')
    if url.username or url.password:
        raise ModelError(spec.name, "base_url holds a password", 'write api_key = "${secret.NAME}"')
    if "tokenize" in options.kinds:
        raise ModelError(spec.name, "OpenAI's HTTP cannot tokenize", 'kinds are "generate", "embed" and "rerank"')
    return options


def served_name(spec: ModelSpec, options: Options) -> str:
    """What the server calls the model."""
    return options.model or spec.source or spec.name


def identity(spec: ModelSpec, options: Options) -> str:
    """Digest of what decides results, as far as it can be known without asking the server."""
    # Which of several servers answers does not decide results, but nothing else tells two models of one name apart.
    content = msgspec.json.encode(
        [1, options.base_url.rstrip("/"), served_name(spec, options), options.extra], order="deterministic"
    )
    return hashlib.sha256(content).hexdigest()[:32]
