"""What a client and the engine host say to each other: length-prefixed msgpack over a Unix socket."""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any, dataclass_transform

import msgspec

from sage_core.common import errors
from sage_core.common.errors import ModelError, SageError, UsageError
from sage_core.common.paths import Paths
from sage_core.common.records import EngineInfo, Kind, ModelSpec, Request, Token

#: Grows with every change of a frame; a client and a host of different numbers do not talk.
PROTOCOL = 2
#: Bytes of the longest frame: a sender past it is not one of ours.
LONGEST = 2**30
#: Bytes a socket's path may have: Linux allows 107, others less.
LONGEST_PATH = 100

#: The value of an answer that has none: nil.
NOTHING = msgspec.Raw(b"\xc0")

_LENGTH = struct.Struct("<I")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Base of all frames."""


class Hello(_Frame, tag=0):
    """First frame of a client: who it is, and every model it may ask for."""

    protocol: int
    worker: str
    #: Folder of the decision log for this client's requests.
    logs: str
    models: dict[str, ModelSpec]


class Welcome(_Frame, tag=1):
    """First frame of the host."""

    protocol: int
    pid: int


class Ask(_Frame, tag=2):
    """A request; `about` asks only what serves its model."""

    request: Request
    about: bool = False


class Cancel(_Frame, tag=3):
    """Nobody waits for this request any more."""

    id: str


class Answer(_Frame, tag=4):
    """What a request asked for, or with an empty value the end of its stream; its kind says of which type."""

    id: str
    value: msgspec.Raw = NOTHING


class Piece(_Frame, tag=5):
    """One token of a stream."""

    id: str
    token: Token


class Failed(_Frame, tag=6):
    """A request, or with an empty id the connection, ended in an error of `sage_core.common.errors`."""

    id: str
    error: str
    fields: list[object]


Frame = Hello | Welcome | Ask | Cancel | Answer | Piece | Failed

# An error's fields may be of any type; what has no form of its own here goes as text.
_ENCODER = msgspec.msgpack.Encoder(enc_hook=str)
_DECODER = msgspec.msgpack.Decoder(Frame)


class Vectors(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The value of an embed request: float32, row by row, little-endian."""

    dimension: int
    data: bytes


#: What answers each kind of request.
_ANSWERS: dict[Kind, Any] = {"embed": Vectors, "rerank": list[float], "tokenize": list[list[tuple[int, int]]]}


def answered(request: str, value: Any) -> Answer:
    """Frame an answer; vectors go as raw numbers."""
    if hasattr(value, "astype"):
        value = Vectors(dimension=value.shape[1], data=value.astype("<f4").tobytes())
    return Answer(id=request, value=msgspec.Raw(msgspec.msgpack.encode(value)))


def unframed(ask: Ask, answer: Answer) -> Any:
    """The answer to a request as its engine gave it."""
    value = msgspec.msgpack.decode(answer.value, type=EngineInfo if ask.about else _ANSWERS[ask.request.kind])
    if not isinstance(value, Vectors):
        return value
    import numpy  # noqa: PLC0415 - a client that never embeds must not pay for it

    vectors = numpy.frombuffer(value.data, "<f4").reshape(len(ask.request.texts), value.dimension)
    return vectors.astype(numpy.float32, copy=False)


def pack(frame: Frame) -> bytes:
    """Encode one frame with its length. Raises `UsageError` for text that is not Unicode."""
    try:
        body = _ENCODER.encode(frame)
    except UnicodeEncodeError as error:
        raise UsageError(f"a text cannot be sent to a model: {error}", "it holds half of a surrogate pair") from None
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """Wait for the next frame; None at the end of the connection, or when it is no connection of ours."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > LONGEST:
            return None
        frame: Frame = _DECODER.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
        return None
    return frame


def failure(request: str, model: str, error: BaseException) -> Failed:
    """Describe an error so that the other side can raise the same one."""
    if not isinstance(error, SageError):
        error = ModelError(model, f"{type(error).__name__}: {error}")
    elif getattr(errors, type(error).__name__, None) is not type(error):
        # A plugin's own, which the other side may not have.
        error = SageError(str(error))
    return Failed(id=request, error=type(error).__name__, fields=list(error.args))


def raised(frame: Failed) -> SageError:
    """Rebuild the error; one that this side does not know, or makes of other fields, keeps its name and fields."""
    kind = getattr(errors, frame.error, None)
    fields = [tuple(field) if isinstance(field, list) else field for field in frame.fields]
    if isinstance(kind, type) and issubclass(kind, SageError):
        try:
            return kind(*fields)
        except TypeError:
            pass
    return SageError(f"{frame.error}: {', '.join(map(str, fields))}")


def socket_path(paths: Paths) -> Path:
    """Where the engine host of these paths listens: in the runtime folder, or under /tmp where that is too deep."""
    if len(os.fsencode(paths.socket)) <= LONGEST_PATH:
        return paths.socket
    digest = blake2b(os.fsencode(paths.socket), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"sage-{os.getuid()}" / f"{digest}.sock"


def private_folder(folder: Path) -> None:
    """Make a folder that only this user can enter. Raises `UsageError` when somebody else owns it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user", "set SAGE_HOME to a folder of your own")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
