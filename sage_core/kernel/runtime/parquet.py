"""Tables as Parquet: plain Arrow types where a column has them, packed bytes where it does not.

Uncompressed and without dictionaries, which is six times quicker for vectors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from sage_core.common.errors import CorruptArtifact
from sage_core.kernel.runtime.table import Column, Mask, Table
from sage_core.kernel.runtime.values import Codec

#: Name of the column with each row's parent row, and what marks a presence column.
_PARENT, _PRESENT = "#parent", "?"
#: Field metadata of a column that holds packed values.
_PACKED = {b"sage": b"msgpack"}


def write(path: Path, table: Table, columns: Mapping[str, Column], marks: Mapping[str, Mask], codec: Codec) -> None:
    """Write the columns, presence and parents of a table."""
    arrays: list[Any] = []
    fields: list[pyarrow.Field] = []

    def add(name: str, array: Any, metadata: dict[bytes, bytes] | None = None) -> None:
        arrays.append(array)
        fields.append(pyarrow.field(name, array.type, metadata=metadata))

    if table.parent is not None:
        add(_PARENT, pyarrow.array(table.parent, pyarrow.int64()))
    for step, mask in marks.items():
        add(step + _PRESENT, pyarrow.array([True] * table.n if mask is None else mask, pyarrow.bool_()))
    for key, column in columns.items():
        add(key, *_array(column, codec))
        if column.present is not None:
            add(key + _PRESENT, pyarrow.array(column.present, pyarrow.bool_()))
    pyarrow.parquet.write_table(
        pyarrow.table(arrays, schema=pyarrow.schema(fields, metadata={"sage.rows": str(table.n)})),
        path,
        compression="none",
        use_dictionary=False,
    )


def read(path: Path, grain: str, columns: Sequence[str], codec: Codec) -> Table:
    """Read some columns, their presence, all marks and the parents; raises `CorruptArtifact`."""
    try:
        # `read_table` costs ten times more on its first call in a process, and threads do not pay at this size.
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [
                name
                for name in names
                if name == _PARENT
                or name in columns
                or (name.endswith(_PRESENT) and ("." not in name or name[:-1] in columns))
            ]
            data = file.read(columns=wanted, use_threads=False)
            rows = int((file.schema_arrow.metadata or {})[b"sage.rows"])
    except (OSError, pyarrow.ArrowException, KeyError, ValueError) as error:
        raise CorruptArtifact(str(path), f"cannot be read: {error}") from None
    parent = data.column(_PARENT).to_pylist() if _PARENT in wanted else None
    table = Table(grain, rows, parent)
    masks = {name[:-1]: _mask(data.column(name).to_pylist()) for name in wanted if name.endswith(_PRESENT)}
    table.marks = {name: mask for name, mask in masks.items() if "." not in name}
    for name in wanted:
        if name != _PARENT and not name.endswith(_PRESENT):
            table.columns[name] = Column(_values(data, name, codec), masks.get(name))
    return table


def _array(column: Column, codec: Codec) -> tuple[Any, dict[bytes, bytes] | None]:
    values = column.values
    if not isinstance(values, list):
        flat = pyarrow.array(values.reshape(-1))
        return pyarrow.FixedSizeListArray.from_arrays(flat, max(values.shape[1], 1)), None
    if column.present is not None:
        values = [value if here else None for value, here in zip(values, column.present, strict=True)]
    kinds = {type(value) for value in values} - {type(None)}
    if len(kinds) == 1 and kinds <= {str, int, float, bool, bytes}:
        with contextlib.suppress(pyarrow.ArrowInvalid, OverflowError):
            # An integer beyond 63 bits is packed, like any other value Arrow has no type for.
            return pyarrow.array(values), None
    return pyarrow.array([codec.encode(value) for value in values], pyarrow.binary()), _PACKED


def _values(data: pyarrow.Table, name: str, codec: Codec) -> Any:
    field, column = data.schema.field(name), data.column(name)
    if pyarrow.types.is_fixed_size_list(field.type):
        block = column.combine_chunks()
        flat = block.flatten() if isinstance(block, pyarrow.FixedSizeListArray) else block.chunk(0).flatten()
        return flat.to_numpy(zero_copy_only=False).reshape(-1, field.type.list_size)
    values = column.to_pylist()
    if (field.metadata or {}).get(b"sage") == b"msgpack":
        return [codec.decode(value) for value in values]
    return values


def _mask(present: list[bool]) -> Mask:
    return None if all(present) else present
