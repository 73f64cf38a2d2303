"""The loop in which waiting takes no time: order of timers, threads, and what its clock shows."""

from __future__ import annotations

import asyncio
import threading

from sage_core.testing.clock import LoopClock, run_skipping


def test_waiting_takes_no_time_and_timers_fire_in_order() -> None:
    seen: list[tuple[str, int]] = []

    async def wait(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, LoopClock().now()))

    async def main() -> None:
        await asyncio.gather(wait(7_200, "later"), wait(3_600, "sooner"))

    run_skipping(main())
    assert seen == [("sooner", 3_600 * 10**9), ("later", 7_200 * 10**9)]


def test_time_stands_still_while_a_thread_works() -> None:
    released = threading.Event()
    seen: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(60, released.set)
        # Another thread lets this one go; the timer would be too early.
        loop.call_soon(threading.Timer(0.01, released.set).start)
        await asyncio.to_thread(released.wait)
        seen.append(LoopClock().now())
        timer.cancel()

    run_skipping(main())
    assert seen == [0]
