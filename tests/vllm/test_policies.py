"""The same load under each policy on a real vLLM: the order that the decision log shows, and who waits for whom."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sage_gateway.testing import Running, serving

from sage_core.serving import Decided, default_host

from .conftest import SMALL
from .traffic import Asked, all_in_engines, ask, at, known, lines_of, wait_for_engines

#: Requests that the engine takes at once.
PLACES = 4
#: Of the isolation test: seconds of each case, between two interactive requests, and batch requests at a time.
SPAN, EVERY, FLOOD = 25.0, 1.0, 40


@pytest.fixture(scope="module")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway in front of one vLLM engine, which is up."""
    chat = {"backend": "vllm", "source": str(smollm2), **SMALL, "sequences": PLACES, "min": 1}
    with serving(tmp_path_factory.mktemp("policies"), default_host(), {"chat": chat}) as gateway:
        wait_for_engines(gateway, 1)
        yield gateway


def of_load(number: int) -> dict[str, str]:
    """Headers of the requests of the load: every other one is interactive, and of these the last is the most urgent."""
    if number % 2 == 0:
        return {"x-sage-class": "batch", "x-sage-worker": str(number)}
    return {
        "x-sage-class": "interactive",
        "x-sage-priority": "10",
        "x-sage-slo-ttft-ms": str(1_000_000 - 50_000 * number),
        "x-sage-worker": str(number),
    }


def order(running: Running, policy: str) -> list[Decided]:
    """Let twelve requests wait for a full engine under a policy, and return their decisions as they were made."""

    async def body() -> None:
        async with at(running) as session:
            tasks = [asyncio.create_task(ask(session, "whole", 0, 100)) for _ in range(PLACES)]
            await all_in_engines(running, PLACES)
            for number in range(12):
                tasks.append(asyncio.create_task(ask(session, "whole", number, 6, of_load(number))))
                await in_line(running, number + 1)
            assert all(asked.well for asked in await asyncio.gather(*tasks))

    running.call(lambda: running.gateway.driver.switch(policy))
    before = known(running)
    asyncio.run(body())
    assert running.settled()
    lines = sorted((line for line in lines_of(running, before) if line.worker.isdecimal()), key=lambda line: line.batch)
    assert len(lines) == 12
    return lines


async def in_line(running: Running, count: int) -> None:
    """Wait until so many requests wait for their dispatch; the test's own limit ends it."""

    def waiting() -> int:
        return len(running.gateway.driver.manager.pools[running.gateway.lanes["chat"]].line)

    while await asyncio.to_thread(running.call, waiting) < count:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.01)


def test_fifo_sends_in_the_order_of_arrival(running: Running) -> None:
    assert [int(line.worker) for line in order(running, "fifo")] == list(range(12))


def test_priority_sends_the_larger_first_and_each_by_arrival(running: Running) -> None:
    assert [int(line.worker) for line in order(running, "priority")] == [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10]


def test_hybrid_sends_the_urgent_first_and_does_not_shut_batch_out(running: Running) -> None:
    lines = order(running, "hybrid")
    sent = [int(line.worker) for line in lines]
    interactive = [number for number in sent if number % 2]
    # The earliest deadline first, which is the reverse of their arrival.
    assert interactive == [11, 9, 7, 5, 3, 1]
    assert [number for number in sent if number % 2 == 0] == [0, 2, 4, 6, 8, 10]
    # Batch gets its floor, a tenth of the engine, and the rest when nobody else waits.
    early = sum(number % 2 == 0 for number in sent[: sent.index(1)])
    assert early <= 2
    assert {line.policy for line in lines} == {"hybrid"}


def test_interactive_requests_wait_less_beside_batch_where_a_policy_cares(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch tenant floods the engine; the figures are printed, and only what is far apart is asserted."""
    found = {"alone": isolation(running, "fifo", flood=0)}
    for policy in ("fifo", "priority", "hybrid"):
        found[policy] = isolation(running, policy, flood=FLOOD)
    # An answer that comes as a whole says nothing of when its prompt had been read, by which hybrid holds batch back.
    found["hybrid, streams"] = isolation(running, "hybrid", flood=FLOOD, kind="stream")
    with capsys.disabled():
        print("\n  first token of interactive requests (s), and batch tokens a second beside them")
        for name, (firsts, batch) in found.items():
            p50, last = statistics.median(firsts), max(firsts)
            print(f"  {name:15} n {len(firsts):3}  p50 {p50:6.2f}  max {last:6.2f}  batch {batch:6.1f}")
    middle = {name: statistics.median(firsts) for name, (firsts, _) in found.items()}
    assert middle["fifo"] > 2 * middle["priority"]
    assert middle["fifo"] > 2 * middle["hybrid"]
    assert min(batch for name, (_, batch) in found.items() if name != "alone") > 0


def isolation(running: Running, policy: str, *, flood: int, kind: str = "whole") -> tuple[list[float], float]:
    """Seconds to the first token of each interactive request, and tokens a second of batch answers of a kind."""
    interactive = {"x-sage-class": "interactive", "x-sage-priority": "10", "x-sage-slo-ttft-ms": "2000"}
    batch = {"x-sage-class": "batch"}

    async def work(session: Any, done: list[Asked], number: int) -> None:
        while True:
            done.append(await ask(session, kind, number, 24, batch))

    async def body() -> tuple[list[Asked], float]:
        async with at(running) as session:
            done: list[Asked] = []
            workers = [asyncio.create_task(work(session, done, number)) for number in range(flood)]
            if flood:
                await in_line(running, flood - PLACES)
            tasks: list[asyncio.Task[Asked]] = []
            loop = asyncio.get_running_loop()
            began, already = loop.time(), len(done)
            while loop.time() - began < SPAN:
                tasks.append(asyncio.create_task(ask(session, "stream", len(tasks), 8, interactive)))
                await asyncio.sleep(EVERY)
            written = 24 * (len(done) - already) / (loop.time() - began)
            answers = await asyncio.gather(*tasks)
            # What nobody waits for any more is taken out of the queue and the engine.
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            assert all(asked.well for asked in (*answers, *done))
            return answers, written

    running.call(lambda: running.gateway.driver.switch(policy))
    answers, written = asyncio.run(body())
    assert running.settled()
    return [asked.first for asked in answers], written
