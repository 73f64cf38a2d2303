"""Words as lexical search compares them."""

from __future__ import annotations

import re
import unicodedata

from sage_rag.tokens import CJK

#: Vowel signs and accents that have no letter of their own. Python's ``\w`` leaves them out, and would take a Hindi or
#: pointed Hebrew word to pieces. They lie in these two ranges, but for those of historic scripts.
_MARKS = "".join(
    chr(code)
    for codes in (range(0x300, 0x1E00), range(0xA66F, 0xABFF))
    for code in codes
    if unicodedata.category(chr(code)).startswith("M")
)
#: Text without spaces between words is compared by character.
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:[{_MARKS}]+[^\W_{CJK}]*)*")


def words(text: str) -> list[str]:
    """Words and numbers, case and width folded; no stemming and no stop words, so it serves any language."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
