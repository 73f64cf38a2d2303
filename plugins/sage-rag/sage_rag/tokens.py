"""An estimate of a text's tokens without a model: about what an English WordPiece vocabulary makes of it."""

from __future__ import annotations

import re

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
#: A CJK character is a token; words are cut every 8 letters, numbers every 2 digits; a mark is a token. Measured
#: against bert-base-uncased: 1.06 of its tokens on abstracts, 1.04 on encyclopedia text, 0.93 on technical Markdown.
_PIECE = re.compile(rf"[{_CJK}]|[^\W\d_{_CJK}]{{1,8}}|\d{{1,2}}|[^\w\s]|_")


def spans(text: str) -> list[tuple[int, int]]:
    """Character spans ``[start, end)`` of the estimated tokens."""
    return [match.span() for match in _PIECE.finditer(text)]
