"""Replies: tokens in order, one end, and errors for whoever waits."""

from __future__ import annotations

import asyncio

import pytest

from sage_core.common.errors import ModelError
from sage_core.common.records import Token
from sage_core.kernel.control_plane.replies import Reply


def test_tokens_come_in_order_and_then_the_end() -> None:
    async def main() -> None:
        reply = Reply()
        for text in "ab":
            reply.push(Token(text=text))
        reply.give(None)
        assert [await reply.token() for _ in range(3)] == [Token(text="a"), Token(text="b"), None]

    asyncio.run(main())


def test_an_error_comes_after_the_tokens_before_it_and_keeps_coming() -> None:
    async def main() -> None:
        reply = Reply()
        reply.push(Token(text="a"))
        reply.fail(ModelError("m", "broke"))
        assert await reply.token() == Token(text="a")
        with pytest.raises(ModelError, match="broke"):
            await reply.token()
        with pytest.raises(ModelError, match="broke"):
            await reply.done

    asyncio.run(main())


def test_the_first_end_counts() -> None:
    async def main() -> None:
        given, failed = Reply(), Reply()
        given.give([1.0])
        given.fail(ModelError("m", "too late"))
        assert await given.done == [1.0]
        failed.fail(ModelError("m", "first"))
        failed.give([1.0])
        with pytest.raises(ModelError, match="first"):
            await failed.done

    asyncio.run(main())


def test_a_reply_that_nobody_waits_for_any_more_may_end_in_any_way() -> None:
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        left = Reply()
        task = asyncio.ensure_future(left.done)
        task.cancel()
        left.give([1.0])
        Reply().fail(ModelError("m", "unseen"))

    asyncio.run(main())
    assert complaints == []
