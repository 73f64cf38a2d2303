"""`llm.generate`: a prompt becomes an answer."""

from __future__ import annotations

from sage_core import Context, operator
from sage_llm.stream import Generation, messages, read


@operator("llm.generate", pure=False, models=("model",), streamed="text")
async def generate(
    prompt: str,
    *,
    model: str,
    max_tokens: int = 256,
    temperature: float = 0.0,
    system: str = "",
    stop: list[str] = [],  # noqa: B006 - an option's default is read from the signature and never changed
    seed: int | None = None,
    ctx: Context,
) -> Generation:
    """Send one chat message and wait for the whole answer; `tokens` counts what the model wrote."""
    stream = ctx.client.generate(
        model, messages(prompt, system), max_tokens=max_tokens, temperature=temperature, stop=tuple(stop), seed=seed
    )
    return await read(model, stream)
