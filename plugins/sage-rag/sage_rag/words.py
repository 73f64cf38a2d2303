"""Words as lexical search compares them."""

from __future__ import annotations

import re
import unicodedata

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
#: Text without spaces between words is compared by character.
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def words(text: str) -> list[str]:
    """Words and numbers, case and width folded; no stemming and no stop words, so it serves any language."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
