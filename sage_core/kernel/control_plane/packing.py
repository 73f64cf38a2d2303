"""Cuts rows of tokens into batches with little padding: the loop of the control plane that sees every text.

`sage-native` does it compiled, where it is installed; the twin in Python gives the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Cut = Callable[[Sequence[int], int, int], list[list[int]]]

_compiled: Callable[[Sequence[int], int, int, float, int], list[list[int]]] | None
try:
    import sage_native
    from sage_native.packing import cut as _found
except ImportError:
    #: What cuts, for those who report it.
    KERNELS = "pure Python"
    _compiled = None
else:
    KERNELS = f"sage-native {sage_native.__version__}"
    _compiled = _found

#: A batch may hold this much padding: a share of its tokens, and an amount too small to matter.
WASTE_SHARE, WASTE_TOKENS = 0.2, 256


def cut(tokens: Sequence[int], batch_tokens: int, batch_rows: int) -> list[list[int]]:
    """Cut places into lean batches, shortest first, ties by place; lengths are below 2**31.

    A batch holds one row, or at most `batch_rows` rows of at most `batch_tokens` padded tokens.
    """
    if _compiled is None:
        return cut_in_python(tokens, batch_tokens, batch_rows)
    return _compiled(tokens, batch_tokens, batch_rows, WASTE_SHARE, WASTE_TOKENS)


def cut_in_python(tokens: Sequence[int], batch_tokens: int, batch_rows: int) -> list[list[int]]:
    """The twin of the compiled `cut`."""
    parts: list[list[int]] = []
    part: list[int] = []
    total = 0
    for place in sorted(range(len(tokens)), key=tokens.__getitem__):
        # Sorted, so the newest row is the longest of its batch.
        length = tokens[place]
        padded = length * (len(part) + 1)
        room = padded <= batch_tokens and len(part) < batch_rows
        if part and not (room and lean(padded, total + length)):
            parts.append(part)
            part, total = [], 0
        part.append(place)
        total += length
    if part:
        parts.append(part)
    return parts


def lean(padded: int, tokens: int) -> bool:
    """Whether a batch of so many padded tokens for so many real ones holds little padding."""
    return padded - tokens <= max(WASTE_SHARE * tokens, WASTE_TOKENS)
