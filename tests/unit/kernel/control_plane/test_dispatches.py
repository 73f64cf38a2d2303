"""Requests in an engine: forwarded byte for byte, retried before the first one, cancelled in any phase."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from sage_core.builtins import default_host
from sage_core.common.errors import AttemptFailed, ModelError, NoEngine, RequestRejected
from sage_core.common.records import Request
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.dispatches import Call, Dispatches
from sage_core.kernel.control_plane.driver import Driver, Trail
from sage_core.kernel.control_plane.engines import EnginePools
from sage_core.kernel.control_plane.events import lane_of
from sage_core.kernel.control_plane.replies import UNREAD, UNREAD_BYTES
from sage_core.testing import FakeClock
from tests.unit.kernel.control_plane.field import DyingEngine, Field, direct, read


async def until(what: Callable[[], object]) -> None:
    while not what():  # noqa: ASYNC110 - the manager has no events to wait for
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "n": 3, "logprobs": True}, {"messages": 7}])
def test_what_an_engine_answers_reaches_the_caller_byte_for_byte(fields: dict[str, Any]) -> None:
    field = Field(ttft=0.5, tokens_per_second=10)

    async def use(driver: Driver) -> None:
        request = field.chat("one two three", **fields)
        trail = Trail()
        data, chunks = await read(driver.forward(request, field.spec, trail=trail))
        assert data == await direct(request)
        assert chunks[0].status == (400 if "messages" in fields else 200)
        assert field.opened[0].bodies == [request.body]
        assert trail.engine == field.decided[0].engine
        assert trail.first == pytest.approx({0: 0.8, 1: 0.5}[bool(fields)] if "messages" not in fields else 0, abs=1e-6)

    field.run(use)
    assert [line.outcome for line in field.decided] == ["done"]


def test_counts_of_the_engine_enter_the_decision_record() -> None:
    field = Field()

    async def use(driver: Driver) -> None:
        await read(driver.forward(field.chat("one two three", stream=True), field.spec))

    field.run(use)
    assert field.decided[0].tokens == 6


def test_an_answer_that_comes_as_a_whole_is_not_taken_for_a_first_token() -> None:
    field = Field(ttft=0.2, tokens_per_second=10.0)

    async def use(driver: Driver) -> None:
        await read(driver.forward(field.chat("one two three"), field.spec))
        await read(driver.forward(field.chat("one two three", stream=True), field.spec))

    field.run(use)
    whole, streamed = field.decided
    assert whole.ttft == 0.0
    assert 0.0 < streamed.ttft < streamed.actual
    assert whole.actual > 0.4


def test_documents_are_ranked_by_the_engines_own_answer() -> None:
    field = Field()

    async def use(driver: Driver) -> None:
        body = {"model": "m", "query": "a b", "documents": ["c", "a"]}
        request = field.request("/v1/rerank", body, "rerank", texts=("a b", "c", "a"))
        data, _ = await read(driver.forward(request, field.spec))
        assert [each["index"] for each in json.loads(data)["results"]] == [1, 0]

    field.run(use)


def test_an_attempt_that_fails_before_the_first_byte_is_made_on_another_engine() -> None:
    field = Field({"fail_first": 1, "dimension": 3}, {"dimension": 4})

    async def use(driver: Driver) -> None:
        driver.serve(field.spec)
        await until(lambda: len(field.opened) == 2)
        requests = [field.chat(f"text {n}", stream=True) for n in range(2)]
        answers = await asyncio.gather(*(read(driver.forward(each, field.spec)) for each in requests))
        assert [data for data, _ in answers] == [await direct(each) for each in requests]
        failed, other = sorted(field.opened, key=lambda engine: engine.options.dimension)
        assert failed.bodies[0] in other.bodies

    field.run(use)
    assert sorted((line.outcome, line.attempts) for line in field.decided) == [("done", 0), ("done", 1)]


def test_an_attempt_that_fails_after_the_first_byte_is_the_callers_error() -> None:
    field = Field({"dimension": 3}, {"dimension": 4}, flaky="x", after=2)

    async def use(driver: Driver) -> None:
        stream: AsyncGenerator[Any] = driver.forward(field.chat("a b c x", stream=True), field.spec)
        got = [(await anext(stream)).data for _ in range(2)]
        assert all(b'"content"' in data for data in got)
        with pytest.raises(AttemptFailed, match="no taste for 'x'"):
            await anext(stream)
        assert sum(engine.attempts for engine in field.opened) == 1

    field.run(use)
    assert [line.outcome for line in field.decided] == ["failed"]


def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_and_is_not_asked_again() -> None:
    field = Field({"dimension": 3}, {"dimension": 4}, deadly="x", after=2)

    async def use(driver: Driver) -> None:
        stream = driver.forward(field.chat("a b c x", stream=True), field.spec)
        await anext(stream)
        with pytest.raises(ModelError, match="lost its engine: RuntimeError: died of 'x'"):
            async for _ in stream:
                pass
        assert sum(engine.attempts for engine in field.opened) == 1

    field.run(use)


def test_what_has_reached_the_caller_is_not_written_again_though_the_engine_was_lost_in_that_instant() -> None:
    field = Field(backend="Dying", tokens_per_second=10)

    async def use(driver: Driver) -> None:
        trail = Trail()
        DyingEngine.die = lambda: driver._engine_changed(trail.engine, ModelError("m", "gone"))
        stream: AsyncGenerator[Any] = driver.forward(field.chat("a b", stream=True), field.spec, trail=trail)
        assert b'"role"' in (await anext(stream)).data
        with pytest.raises(ModelError, match="gone"):
            await anext(stream)

    field.run(use)
    assert [line.outcome for line in field.decided] == ["failed"]


def test_an_engine_that_answers_nothing_has_failed_its_attempt() -> None:
    field = Field(backend="Silent")

    async def use(driver: Driver) -> None:
        with pytest.raises(AttemptFailed, match="its engine answered nothing"):
            await read(driver.forward(field.chat("a"), field.spec))

    field.run(use)
    assert [(line.outcome, line.attempts) for line in field.decided] == [("failed", 3)]


def test_an_engine_that_only_forwards_is_asked_only_for_that() -> None:
    field = Field(backend="Proxy")

    async def use(driver: Driver) -> None:
        assert (await read(driver.forward(field.chat("a"), field.spec)))[0] == b"{}"
        plain = Request(id="plain", kind="generate", model="m", messages=({"role": "user", "content": "a"},))
        with pytest.raises(ModelError, match="it cannot generate"):
            await read(driver.generate(plain, field.spec))

    field.run(use)


@pytest.mark.parametrize(("words", "width"), [(2_000, 3), (40, 200_000)])
def test_a_slow_reader_holds_up_its_engine_and_not_the_memory(words: int, width: int) -> None:
    field = Field(sequences=2)

    async def use(driver: Driver) -> None:
        text = " ".join(f"{n:0{width}}" for n in range(words))
        stream: AsyncGenerator[Any] = driver.forward(field.chat(text, stream=True, max_tokens=words), field.spec)
        first = await anext(stream)
        await asyncio.sleep(60)
        (call,) = driver._calls.values()
        assert UNREAD - 2 <= call.unread <= UNREAD + 1 or UNREAD_BYTES <= call.unread_bytes < UNREAD_BYTES + 2 * width
        # Another one in the same engine is not held up.
        assert (await read(driver.forward(field.chat("quick"), field.spec)))[0]
        rest, _ = await read(stream)
        assert (first.data + rest).count(b'"content":"') == words + 1

    field.run(use)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["waiting room", "queued", "prefilling", "streaming", "slow reader"])
def test_a_caller_that_goes_in_any_phase_gives_all_credits_back(phase: str, stream: bool) -> None:
    field = Field(open_seconds=1.0, ttft=1.0, tokens_per_second=0 if phase == "slow reader" else 10)
    text = "word " * 1_000

    async def use(driver: Driver) -> None:
        other = asyncio.create_task(read(driver.forward(field.chat("before"), field.spec)))
        await asyncio.sleep(0.5 if phase == "waiting room" else 1.5)
        if phase not in ("waiting room", "queued"):
            await other

        async def go() -> None:
            answer = driver.forward(field.chat(text, stream=stream, max_tokens=1_000), field.spec)
            async with aclosing(answer):
                async for _ in answer:
                    if phase == "slow reader":
                        await asyncio.Event().wait()

        task = asyncio.create_task(go())
        await asyncio.sleep({"waiting room": 0.2, "queued": 0.1, "prefilling": 0.5}.get(phase, 2.0))
        held = driver.manager.held
        task.cancel()
        await asyncio.wait([task])
        await other
        await until(lambda: driver.manager.held == 0)
        assert held > 0 or (phase == "slow reader" and not stream)
        # The one seat is free again.
        assert (await read(driver.forward(field.chat("after"), field.spec)))[0]

    field.run(use)
    written = [tokens for engine in field.opened for _, tokens in engine.cancels]
    begun = phase in ("prefilling", "streaming") or (phase == "slow reader" and stream)
    assert len(written) == begun
    assert all((tokens > 0) == (phase != "prefilling") for tokens in written)


@pytest.mark.parametrize("others", [0, 1])
def test_a_batch_is_stopped_when_the_last_of_its_callers_goes(others: int) -> None:
    field = Field(batch_seconds=10.0)

    async def use(driver: Driver) -> None:
        await driver.ask(Request(id="about", kind="embed", model="m"), field.spec, about=True)
        embeds = [Request(id=f"e{n}", kind="embed", model="m", texts=("both", f"{n}")) for n in range(2)]
        tasks = [asyncio.create_task(driver.ask(each, field.spec)) for each in embeds]
        await asyncio.sleep(5)
        (batch,) = field.opened[0].batches
        assert set(batch) == {"both", "0", "1"}
        for task in tasks[others:]:
            task.cancel()
        await asyncio.wait(tasks[others:])
        await asyncio.sleep(1)
        assert (driver.manager.held == 0) == (others == 0)
        for task in tasks[:others]:
            assert (await task).shape == (2, 16)
        assert len(field.opened[0].cancels) == (not others)

    field.run(use)
    assert sorted(line.outcome for line in field.decided) == sorted(["cancelled"] * (2 - others) + ["done"] * others)


def test_an_engine_that_breaks_while_a_request_is_cancelled_is_closed_all_the_same() -> None:
    field = Field(backend="Brittle", ttft=1.0)

    async def use(driver: Driver) -> None:
        task = asyncio.create_task(read(driver.forward(field.chat("a", stream=True), field.spec)))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: driver.manager.held == 0)
        assert driver.pools.info(lane_of(field.spec)) is None
        assert (await read(driver.forward(field.chat("b", stream=True), field.spec)))[0]
        assert len(field.opened) == 2

    field.run(use)
    assert [line.outcome for line in field.decided] == ["cancelled", "done"]


def test_a_flood_is_refused_with_a_time_to_come_back_and_leaves_nothing_behind() -> None:
    field = Field(ttft=0.1, sequences=4, queue={"requests": 20, "wait": "2s"})

    async def use(driver: Driver) -> None:
        await read(driver.forward(field.chat("warm"), field.spec))
        flood = [read(driver.forward(field.chat(f"{n}"), field.spec)) for n in range(3_000)]
        ends = await asyncio.gather(*flood, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, RequestRejected)]
        assert len(refused) == 3_000 - 24
        assert all("the queue of model 'm' is full: 20 requests wait" in str(end) for end in refused)
        assert all(end.retry_after and end.retry_after >= 1 for end in refused)

    field.run(use)


def test_without_an_engine_that_can_be_opened_it_is_said_when_to_come_back() -> None:
    field = Field(broken="no memory left")

    async def use(driver: Driver) -> None:
        for _ in range(12):
            with pytest.raises((ModelError, NoEngine)) as caught:
                await read(driver.forward(field.chat("a"), field.spec))
        assert isinstance(caught.value, NoEngine)
        assert "no memory left" in str(caught.value)
        assert caught.value.retry_after

    field.run(use)


def test_memory_is_flat_over_thousands_of_requests() -> None:
    field = Field(sequences=8, fail_every=50, flaky="flaky", after=3, queue={"requests": 64})

    async def use(driver: Driver) -> None:
        async def one(number: int) -> None:
            request = field.chat(f"a b c {'flaky' if number % 7 == 0 else 'd'} {number}", stream=number % 2 == 0)
            stream = driver.forward(request, field.spec)
            try:
                async with aclosing(stream):
                    async for _ in stream:
                        if number % 5 == 0:
                            break
            except (AttemptFailed, RequestRejected):
                pass

        async def many(start: int, count: int) -> int:
            for number in range(start, start + count, 100):
                await asyncio.gather(*(one(number + each) for each in range(100)))
            for engine in field.opened:
                engine.bodies.clear()
                engine.cancels.clear()
            field.decided.clear()
            field.instants.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = await many(0, 2_000)
            after = await many(2_000, 3_000)
        finally:
            tracemalloc.stop()
        assert after - before < 100_000, f"{after - before} bytes more after 3,000 requests"

    field.run(use)


def test_an_engine_that_was_lost_between_decision_and_dispatch_is_another_ones_chance() -> None:
    fed: list[events.Input] = []

    async def use() -> None:
        async with asyncio.TaskGroup() as tasks:
            pools = EnginePools(default_host().backends, tasks, lambda engine, what: None)
            dispatches = Dispatches(tasks, pools, FakeClock(), fed.append)
            call = Call(Field().chat("one"), "lane", Trail())
            dispatches.one(events.DispatchOne(ticket=1, engine="lane#1", request="1"), call)

    asyncio.run(use())
    (broke,) = fed
    assert isinstance(broke, events.Broke)
    assert (broke.again, broke.fatal) == (True, False)
    assert "its engine was gone before it was asked" in broke.reason
