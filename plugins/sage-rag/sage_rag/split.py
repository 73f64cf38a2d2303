"""Where a text is cut into chunks: pure functions over token positions."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal

By = Literal["tokens", "sentence", "heading"]

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE = re.compile(r"""[.!?…]["'”’)\]]*\s+|[。！？]["'”’)\]」]*\s*""")
_LINE = re.compile(r"\n\s*")
_HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def split(
    text: str, tokens: Sequence[tuple[int, int]], size: int, overlap: int = 0, by: By = "tokens"
) -> Iterator[tuple[int, int]]:
    """Character spans of chunks of at most `size` tokens that together hold every character but white space."""
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f"size = {size}, overlap = {overlap}: size is at least 1, overlap from 0 to size - 1")
    # A cut lies where a token starts. Tokens of one character (bytes of an emoji) share a start, and those of byte-pair
    # vocabularies begin with the space before a word, where no sentence begins.
    cuts = list(accumulate((_visible(text, start, end) for start, end in tokens), max))
    for start, end in _sections(text) if by == "heading" else [(0, len(text))]:
        inside = cuts[bisect_left(cuts, start) : bisect_left(cuts, end)]
        for first, last in _pieces(text, start, end, inside, size, overlap, by == "sentence"):
            yield from _stripped(text, first, last)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Character spans of a text's sentences; a paragraph's end ends one too."""
    ends = sorted(
        {match.end() for pattern in (_PARAGRAPH, _SENTENCE) for match in pattern.finditer(text)} | {len(text)}
    )
    for start, end in zip([0, *ends], ends, strict=False):
        yield from _stripped(text, start, end)


def _pieces(
    text: str, start: int, end: int, cuts: list[int], size: int, overlap: int, whole_sentences: bool
) -> Iterator[tuple[int, int]]:
    quality = _quality(text, start, end, cuts)
    if whole_sentences:
        # A paragraph's end is a sentence's end: the longest run of sentences wins, not the first paragraph.
        quality = [min(value, 2) for value in quality]
    first, begin = 0, start
    while first < len(cuts):
        limit = first + size
        if limit >= len(cuts):
            yield begin, end
            return
        # Never so early that the overlap would swallow the step forward.
        low = max(first + (1 if whole_sentences else size // 2), first + overlap) + 1
        last = max(range(low, limit + 1), key=lambda cut: (quality[cut], cut), default=limit)
        yield begin, cuts[last]
        first = last - overlap
        if whole_sentences and overlap and quality[last]:
            first = next((cut for cut in range(first, last) if quality[cut]), last)
        begin = cuts[first]
    if not cuts:
        yield start, end


def _quality(text: str, start: int, end: int, cuts: list[int]) -> list[int]:
    """How good a place each token's start is to begin a chunk: 3 paragraph, 2 sentence, 1 line, 0 none."""
    quality = [0] * len(cuts)
    for value, pattern in ((1, _LINE), (2, _SENTENCE), (3, _PARAGRAPH)):
        for match in pattern.finditer(text, start, end):
            cut = bisect_left(cuts, match.end())
            if cut < len(cuts) and not text[match.end() : cuts[cut]].strip():
                quality[cut] = value
    return quality


def _sections(text: str) -> Iterator[tuple[int, int]]:
    fences = [match.span() for match in _FENCE.finditer(text)]
    starts = [
        match.start()
        for match in _HEADING.finditer(text)
        if not any(first <= match.start() < last for first, last in fences)
    ]
    yield from zip([0, *starts], [*starts, len(text)], strict=True)


def _visible(text: str, start: int, end: int) -> int:
    """Where the token's first character that is no white space lies; its end without one."""
    while start < end and text[start].isspace():
        start += 1
    return start


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end -= len(piece) - len(piece.rstrip())
    if start < end:
        yield start, end
