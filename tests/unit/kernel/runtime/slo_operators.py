"""Operators that ask a model, for workflows with an end-to-end aim."""

from __future__ import annotations

import asyncio

from sage_core import Context, hookimpl, operator


@operator("s.ask", pure=False)
async def ask(text: str, *, ctx: Context, pause: float = 0.0) -> str:
    await asyncio.sleep(pause)
    # Of a stream, the decision log names the deadline of the first token, which depends on what is expected of it.
    assert len(await ctx.client.embed("m", [text])) == 1
    return text


@hookimpl
def sage_operators() -> dict[str, str]:
    return {"s.ask": f"{__name__}:ask"}
