"""`llm.extract`: text becomes JSON that satisfies a schema."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from sage_core import Context, operator
from sage_llm.stream import messages, read

INSTRUCTION = "Extract the data from the text below. Answer with JSON only."

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


@operator("llm.extract", returns="value", pure=False, models=("model",))
async def extract(
    text: str,
    *,
    model: str,
    schema: dict[str, Any],
    instruction: str = INSTRUCTION,
    max_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
    ctx: Context,
) -> Any:
    """Ask for JSON by `schema`, hold the answer against it, and ask once more with what was wrong if it fails.

    A second invalid answer fails the row. `schema` is JSON Schema; references to other documents are not followed.
    """
    # jsonschema is needed to run a row only, and `sage check` imports this module.
    from sage_llm.schema import validator  # noqa: PLC0415

    problem_of = validator(schema)
    # Engines that cannot constrain their output still see the schema.
    chat = messages(f"{instruction}\n\nJSON Schema:\n{json.dumps(schema, ensure_ascii=False)}\n\nText:\n{text}")
    problem = ""
    for _ in range(2):
        stream = ctx.client.generate(
            model, chat, max_tokens=max_tokens, temperature=temperature, seed=seed, schema=schema
        )
        answer = await read(model, stream)
        value, problem = _parse(answer.text)
        problem = problem or problem_of(value)
        if not problem:
            return value
        if answer.tokens >= max_tokens:
            problem += f" (the answer was cut at max_tokens = {max_tokens})"
        chat += [
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": f"That is not valid: {problem}. Answer again with the corrected JSON only."},
        ]
    raise ValueError(f"model {model!r} gave no valid JSON in two tries: {problem}")


def _parse(text: str) -> tuple[Any, str]:
    fenced = _FENCED.match(text)
    try:
        # Stricter than `json`, which takes NaN, infinite numbers and halves of characters that no result can hold.
        return msgspec.json.decode(fenced[1] if fenced else text), ""
    except msgspec.DecodeError as error:
        return None, f"not JSON: {error}"
    except RecursionError:
        # A small model that repeats itself writes brackets until it is cut.
        return None, "not JSON: it is nested too deeply"
