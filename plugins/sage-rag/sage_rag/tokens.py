"""An estimate of a text's tokens without a model: about what an English WordPiece vocabulary makes of it."""

from __future__ import annotations

import re

#: Letters of scripts that put no space between words.
CJK = (
    r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uac00-\ud7a3\uf900-\ufa6d\ufa70-\ufad9"
)
#: A CJK character is a token; words are cut every 8 letters, numbers every 2 digits; a mark is a token. Measured
#: against bert-base-uncased: 1.06 of its tokens on abstracts, 1.04 on encyclopedia text, 0.93 on technical Markdown.
_PIECE = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]{{1,8}}|\d{{1,2}}|[^\w\s]|_")


def spans(text: str) -> list[tuple[int, int]]:
    """Character spans ``[start, end)`` of the estimated tokens."""
    return [match.span() for match in _PIECE.finditer(text)]
