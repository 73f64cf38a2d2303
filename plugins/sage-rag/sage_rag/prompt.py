"""`rag.prompt`: a question and its passages become one prompt with numbered citations."""

from __future__ import annotations

import re

from sage_core import operator
from sage_rag.records import Passage, as_passages
from sage_rag.tokens import spans

TEMPLATE = """Answer the question from the passages below and nothing else. Cite passages by number, like [1]. \
If they do not hold the answer, say that they do not.

{passages}

Question: {question}
Answer:"""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@operator("rag.prompt", returns="prompt")
def prompt(question: str, passages: list[Passage], *, template: str = TEMPLATE, budget: int = 1024) -> str:
    """Fill ``{question}``, ``{passages}`` and ``{n}`` (how many); ``{{`` and ``}}`` are braces, nothing is evaluated.

    Passages are taken from the best on until the prompt would exceed `budget` estimated tokens; the first is cut to
    fit rather than left out.
    """
    room = budget - len(spans(fill(template, {"question": question, "passages": "", "n": "0"})))
    taken: list[str] = []
    for number, passage in enumerate(as_passages(passages), 1):
        head = f"[{number}] {passage.path}\n"
        body = " ".join(passage.text.split()) if "\n" not in passage.text.strip() else passage.text.strip()
        left = room - len(spans(head))
        tokens = spans(body)
        if len(tokens) > left:
            if not taken and left > 0:
                taken.append(head + body[: tokens[left - 1][1]])
            break
        taken.append(head + body)
        room = left - len(tokens)
    values = {"question": question, "passages": "\n\n".join(taken) or "(no passage)", "n": str(len(taken))}
    return fill(template, values)


def fill(template: str, values: dict[str, str]) -> str:
    """Put values for ``{names}``; values are not looked at again, so a document cannot smuggle a field in."""

    def value(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ValueError(f"template: {match[0]!r} is not a field. Fields: {known}; a plain brace is written twice")
        return values[match[1]]

    return _FIELD.sub(value, template)
