"""The asyncio driver over fake engines: answers, failures, cancellation, and the same decisions when replayed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy
import pytest

import sage_core.testing.engines as fake
from sage_core.common.clock import SECOND
from sage_core.common.config import ClassConfig
from sage_core.common.errors import ConfigError, InvalidRequest, ModelError, RequestRejected, UnknownName, UsageError
from sage_core.common.host import Host
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import Caller, ModelSpec, Request, Work
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided, EngineLost, lane_of
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import replay
from tests.unit.kernel.control_plane.bench import Bench, run


class LastComeFirstServed:
    def rank(self, work: Work) -> float:
        return -float(work.arrival)


def chat(bench: Bench, text: str, **fields: Any) -> Request:
    return bench.request("generate", messages=({"role": "user", "content": text},), **fields)


def test_vectors_come_back_in_the_order_of_the_texts_whatever_was_batched_how() -> None:
    bench = Bench(batch_tokens=200, batch_rows=8)
    texts = [("x" * (n * 37 % 400)) + str(n % 50) for n in range(120)]

    async def use(driver: Driver) -> None:
        alone = [await driver.ask(bench.request("embed", text), bench.spec) for text in texts[:50]]
        together = await driver.ask(bench.request("embed", *texts), bench.spec)
        assert together.dtype == numpy.float32
        assert together.shape == (120, 16)
        assert all((row == single[0]).all() for row, single in zip(together, alone, strict=False))
        assert max(map(len, bench.engine(driver).batches)) == 8

    run(bench, use)


def test_concurrent_callers_share_batches_and_equal_texts() -> None:
    bench = Bench()

    async def use(driver: Driver) -> None:
        await driver.ask(bench.request("embed", "warm"), bench.spec)
        answers = await asyncio.gather(
            *(driver.ask(bench.request("embed", f"text {n % 8}"), bench.spec) for n in range(64))
        )
        assert bench.engine(driver).batches[1:] == [tuple(f"text {n}" for n in range(8))]
        assert (answers[0] == answers[8]).all()
        assert not (answers[0] == answers[1]).all()

    run(bench, use)


@pytest.mark.parametrize("sequences", [1, 3])
def test_bad_texts_fail_their_own_requests_only(sequences: int) -> None:
    bench = Bench(poison="arsenic", sequences=sequences)

    async def use(driver: Driver) -> None:
        texts = ("arsenic", "arsenic too", "water")
        answers: list[object] = await asyncio.gather(
            *(driver.ask(bench.request("embed", text), bench.spec) for text in texts), return_exceptions=True
        )
        good = answers.pop()
        assert isinstance(good, numpy.ndarray)
        assert good.shape == (1, 16)
        said = "model 'm': its engine raised ValueError: cannot swallow 'arsenic'\n  help: it was closed"
        assert [str(bad).startswith(said) for bad in answers] == [True, True]
        assert [type(bad) for bad in answers] == [ModelError, ModelError]

    run(bench, use)
    assert bench.manager.held == 0


def test_every_kind_is_answered_and_every_request_is_decided_once_with_its_caller() -> None:
    bench = Bench()
    caller = Caller(tenant="t", run="run1", step="ask", worker="w1")

    async def use(driver: Driver) -> None:
        assert await driver.ask(bench.request("rerank", "a b", "a", "c", caller=caller), bench.spec) == [1 / 3, 0.0]
        assert await driver.ask(bench.request("tokenize", "to be", caller=caller), bench.spec) == [[(0, 2), (3, 5)]]
        empty = await driver.ask(bench.request("embed", caller=caller), bench.spec)
        assert empty.shape == (0, 16)
        tokens = [token async for token in driver.generate(chat(bench, "one two", caller=caller), bench.spec)]
        assert "".join(token.text for token in tokens) == "one two"
        assert (tokens[-1].finish, tokens[-1].completion_tokens) == ("stop", 2)
        info = await driver.ask(bench.request("tokenize"), bench.spec, about=True)
        assert (info.model, info.dimension, info.backend) == ("m", 16, "fake")

    run(bench, use)
    assert [line.kind for line in bench.decided] == ["rerank", "tokenize", "generate"]
    for line in bench.decided:
        assert (line.tenant, line.run, line.step, line.worker) == ("t", "run1", "ask", "w1")
        assert line.outcome == "done"
        assert line.actual > 0


def test_tokens_reach_the_reader_before_the_answer_is_complete() -> None:
    bench = Bench(tokens_per_second=1_000)

    async def use(driver: Driver) -> None:
        async with aclosing(driver.generate(chat(bench, "one two three"), bench.spec)) as stream:
            assert (await anext(stream)).text == "one"
            assert bench.manager.held > 0

    run(bench, use)


def test_closing_a_stream_closes_the_engines_and_returns_its_credit() -> None:
    bench = Bench(text="markov", tokens_per_second=10_000)

    async def use(driver: Driver) -> None:
        async with aclosing(driver.generate(chat(bench, "a b", max_tokens=100_000), bench.spec)) as stream:
            await anext(stream)
        # One seat: this is answered only after the stream has given its own back.
        assert [token async for token in driver.generate(chat(bench, "c"), bench.spec)]
        assert bench.engine(driver).cancelled == 1

    run(bench, use)
    assert bench.manager.held == 0
    assert [line.outcome for line in bench.decided] == ["cancelled", "done"]


def test_cancelled_embed_requests_leave_the_queue() -> None:
    bench = Bench(batch_seconds=0.02)

    async def use(driver: Driver) -> None:
        await driver.ask(bench.request("tokenize"), bench.spec, about=True)
        first = asyncio.create_task(driver.ask(bench.request("embed", "first"), bench.spec))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.create_task(driver.ask(bench.request("embed", f"{n}"), bench.spec)) for n in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in others[:4]:
            task.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
        assert bench.engine(driver).batches == [("first",), ("4",)]

    run(bench, use)
    assert bench.manager.held == 0


def test_a_model_that_cannot_be_opened_fails_every_waiting_request_and_may_be_asked_again() -> None:
    bench = Bench(broken="out of memory")

    async def use(driver: Driver) -> None:
        for _ in range(2):
            with pytest.raises(ModelError, match="model 'm': out of memory"):
                await driver.ask(bench.request("embed", "a"), bench.spec)

    run(bench, use)
    assert bench.manager.held == 0


def test_service_classes_ask_for_something_else_from_one_request_to_the_next() -> None:
    bench = Bench()

    async def ask(driver: Driver) -> None:
        request = chat(bench, "hello", caller=Caller(service_class="interactive"))
        _ = [token async for token in driver.generate(request, bench.spec)]

    async def use(driver: Driver) -> None:
        await ask(driver)
        driver.classes({"interactive": ClassConfig(ttft="2s", tpot="50ms")})
        await ask(driver)
        with pytest.raises(ConfigError, match=r"\[classes\.interactive\]"):
            driver.classes({"interactive": ClassConfig(ttft="soon")})
        driver.classes({})
        await ask(driver)

    run(bench, use)
    asked = [(line.deadline, line.tpot) for line in bench.decided]
    assert asked == [(None, None), (2 * SECOND, SECOND // 20), (None, None)]
    # They are inputs like any other: a replay knows them.
    again = [action for actions in replay(bench.instants, ControlPlaneManager()) for action in actions]
    assert [action for action in again if isinstance(action, Decided)] == bench.decided


def test_an_engine_that_raises_is_closed_and_the_next_request_opens_another() -> None:
    bench = Bench(poison="poison")

    async def use(driver: Driver) -> None:
        await driver.ask(bench.request("embed", "good"), bench.spec)
        first = bench.engine(driver)
        with pytest.raises(ModelError, match=r"its engine raised ValueError: cannot swallow 'poison'\n  help: it was"):
            await driver.ask(bench.request("embed", "poison"), bench.spec)
        assert driver.pools.info(lane_of(bench.spec)) is None
        assert (await driver.ask(bench.request("embed", "good again"), bench.spec)).shape == (1, 16)
        assert bench.engine(driver) is not first

    run(bench, use)
    assert bench.manager.held == 0


@pytest.mark.parametrize("kind", ["embed", "rerank", "generate"])
def test_an_engine_whose_task_dies_loses_its_requests_with_the_reason(kind: str) -> None:
    bench = Bench(deadly="venom", sequences=2)

    async def use(driver: Driver) -> None:
        async def deadly() -> None:
            if kind == "generate":
                async for _ in driver.generate(chat(bench, "venom"), bench.spec):
                    pass
            else:
                await driver.ask(bench.request(kind, "query", "venom"), bench.spec)

        # Once more on another engine, in case the death was not its doing; then it is an error.
        with pytest.raises(ModelError, match="backend 'fake' lost its engine: RuntimeError: died of 'venom'"):
            await deadly()
        assert driver.pools.info(lane_of(bench.spec)) is None
        assert (await driver.ask(bench.request("embed", "good"), bench.spec)).shape == (1, 16)

    run(bench, use)
    assert [type(event) for instant in bench.instants for event in instant.inputs].count(EngineLost) == 2
    assert bench.manager.held == 0


def test_what_shared_an_engine_with_the_deadly_is_done_on_the_next() -> None:
    bench = Bench(deadly="venom", sequences=2, tokens_per_second=200.0)

    async def use(driver: Driver) -> None:
        async def ask(text: str) -> str:
            return "".join([token.text async for token in driver.generate(chat(bench, text), bench.spec)])

        good: object
        bad: object
        good, bad = await asyncio.gather(
            driver.ask(bench.request("rerank", "a", "a b"), bench.spec), ask("venom"), return_exceptions=True
        )
        assert isinstance(bad, ModelError)
        assert good == [0.5]

    run(bench, use)
    assert bench.manager.held == 0


def test_a_stream_that_another_request_cut_off_says_what_broke_the_engine() -> None:
    bench = Bench(poison="arsenic", sequences=2, tokens_per_second=50)

    async def use(driver: Driver) -> None:
        async with aclosing(driver.generate(chat(bench, "one two three four"), bench.spec)) as stream:
            await anext(stream)
            with pytest.raises(ModelError) as broke:
                await driver.ask(bench.request("rerank", "query", "arsenic"), bench.spec)
            with pytest.raises(ModelError) as cut:
                async for _ in stream:
                    pass
        assert str(cut.value) == str(broke.value)
        assert str(cut.value).startswith("model 'm': its engine raised ValueError: cannot swallow 'arsenic'\n  help:")

    run(bench, use)


def test_decisions_that_cannot_be_written_fail_no_request(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    def full(lines: object) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        async with Driver(bench.manager, Host({"fake": fake}).backends, sink=full) as driver:
            assert (await driver.ask(bench.request("embed", "a"), bench.spec)).shape == (1, 16)
            running = asyncio.create_task(driver.ask(bench.request("embed", "b"), bench.spec))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(main())
    assert {record.action for record in caplog.records} == {"decisions_lost"}  # type: ignore[attr-defined]
    assert "No space left on device" in caplog.records[0].getMessage()
    assert bench.manager.held == 0


def test_an_unknown_backend_names_the_known_ones() -> None:
    bench = Bench()

    async def use(driver: Driver) -> None:
        with pytest.raises(UnknownName, match=r"No backend is named 'fale'\. Did you mean 'fake'\?"):
            await driver.ask(bench.request("embed", "a"), ModelSpec(name="m", backend="fale"))

    run(bench, use)


def test_an_engine_is_not_asked_for_what_it_does_not_serve() -> None:
    bench = Bench(kinds=["embed", "tokenize"])

    async def use(driver: Driver) -> None:
        with pytest.raises(
            InvalidRequest, match=r"model 'm': it cannot rerank\n  help: its backend serves: embed, tokenize;"
        ) as caught:
            await driver.ask(bench.request("rerank", "a", "b"), bench.spec)
        assert caught.value.code == "unsupported"
        assert (await driver.ask(bench.request("embed", "a"), bench.spec)).shape == (1, 16)

    run(bench, use)


def test_a_request_id_that_is_in_flight_is_refused() -> None:
    bench = Bench(batch_seconds=0.01)

    async def use(driver: Driver) -> None:
        request = bench.request("embed", "a")
        first = asyncio.create_task(driver.ask(request, bench.spec))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="'r0' is in flight already"):
            await driver.ask(request, bench.spec)
        await first

    run(bench, use)


def test_closing_the_driver_ends_what_is_in_flight() -> None:
    bench = Bench(batch_seconds=30)

    async def main() -> None:
        async with bench.open() as driver:
            task = asyncio.create_task(driver.ask(bench.request("embed", "a"), bench.spec))
            await driver.ask(bench.request("tokenize"), bench.spec, about=True)
        with pytest.raises(RequestRejected, match="the control plane is closing"):
            await task

    asyncio.run(main())


def test_a_recorded_live_run_replayed_makes_identical_decisions() -> None:
    bench = Bench(batch_tokens=300, batch_seconds=0.001, sequences=2, poison="poison")
    made: list[list[object]] = []
    step = bench.manager.step

    def spied(inputs: Any, now: int) -> Any:
        made.append(actions := step(inputs, now))  # type: ignore[arg-type]
        return actions

    bench.manager.step = spied  # type: ignore[method-assign]

    async def use(driver: Driver) -> None:
        async def caller(number: int) -> None:
            for turn in range(6):
                texts = [f"text {number * turn % 7} " * (1 + (number + turn) % 40) for _ in range(turn)]
                if number == 3 and turn == 4:
                    texts = ["poison"]
                try:
                    async with asyncio.timeout(0.0005 if number == 5 else None):
                        await driver.ask(bench.request("embed", *texts), bench.spec)
                        async for _ in driver.generate(chat(bench, "a b c"), bench.spec):
                            pass
                except (ModelError, TimeoutError):
                    continue

        await asyncio.gather(*(caller(number) for number in range(8)))

    run(bench, use)
    assert len(bench.instants) > 50
    assert bench.manager.held == 0
    assert {line.outcome for line in bench.decided} == {"done", "failed", "cancelled"}
    assert [*replay(bench.instants, ControlPlaneManager())] == made
    # The comparison can fail: another policy for the same inputs makes other decisions.
    other = ControlPlaneManager(lambda name: KeyedScheduler(LastComeFirstServed()))
    # Lazily: past the first difference, the rest of the recording is about dispatches that were not made.
    assert any(actions != before for actions, before in zip(replay(bench.instants, other), made, strict=True))
