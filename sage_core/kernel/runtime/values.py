"""Values as bytes: msgpack with two extensions, and the digests that reuse keys are made of.

A value is what a column may hold: JSON-like data, bytes, float32 arrays, artifacts. Records become dictionaries on the
way in, so that a reused result and a fresh one look the same to the next step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sage_core.common.operators import Artifact
from sage_core.kernel.dataflow.graph import Type

#: msgpack extension codes.
_ARRAY, _ARTIFACT = 1, 2

#: Changes when stored results of an older SAGE can no longer be read; part of every reuse key.
FORMAT = 1


class Codec:
    """Encodes values; decodes artifacts to paths below one artifact folder."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_encode_extension, decimal_format="string")
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=self._decode_extension)

    def encode(self, value: object) -> bytes:
        """Bytes of a value; equal values have equal bytes (dictionaries in the order they were filled)."""
        return self._encoder.encode(value)

    def decode(self, data: bytes) -> Any:
        """Undo `encode`."""
        return self._decoder.decode(data)

    def _decode_extension(self, code: int, data: memoryview) -> object:
        if code == _ARRAY:
            import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

            shape, body = msgspec.msgpack.decode(bytes(data), type=tuple[list[int], bytes])
            return numpy.frombuffer(body, dtype=numpy.float32).reshape(shape)
        target, digest = msgspec.msgpack.decode(bytes(data), type=tuple[str, str])
        module, _, name = target.partition(":")
        kind = getattr(importlib.import_module(module), name)
        return kind(self._artifacts / digest[:2] / digest, digest)


def _encode_extension(value: object) -> object:
    if isinstance(value, Artifact):
        target = f"{type(value).__module__}:{type(value).__qualname__}"
        return msgspec.msgpack.Ext(_ARTIFACT, msgspec.msgpack.encode((target, value.digest)))
    if hasattr(value, "__array_interface__") and hasattr(value, "shape"):
        import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

        if not value.shape:
            return value.item()  # type: ignore[attr-defined] # a numpy scalar, by its two attributes
        array = numpy.ascontiguousarray(value, dtype=numpy.float32)
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode((list(array.shape), array.tobytes())))
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be kept")


def digest(*parts: bytes | str) -> str:
    """Hex digest of the parts, unambiguous about where each ends (BLAKE2b, 16 bytes)."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def has_record(kind: Type | None) -> bool:
    """Whether values of this type may hold what is not stored as it is: records become dictionaries, paths texts."""
    return kind is not None and (
        kind.kind in ("record", "any")
        or kind.name == "path"
        or has_record(kind.item)
        or any(has_record(field) for field in kind.fields.values())
    )


def plain(value: Any) -> Any:
    """The value with records inside it turned into dictionaries; arrays and artifacts stay what they are."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
