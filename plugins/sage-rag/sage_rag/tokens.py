"""An estimate of a text's tokens without a model: about what an English WordPiece vocabulary makes of it."""

from __future__ import annotations

import re

#: CJK characters are tokens of their own; a long word is several pieces; each mark is one.
_PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|(?:(?![\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff])\w){1,9}"
    r"|[^\w\s]"
)


def spans(text: str) -> list[tuple[int, int]]:
    """Character spans ``[start, end)`` of the estimated tokens."""
    return [match.span() for match in _PIECE.finditer(text)]
