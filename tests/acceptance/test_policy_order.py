"""Three servers under fifo, priority and hybrid get one recorded load: each log shows the order its policy promises."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sage_core import Caller, ServiceClass
from sage_core.builtins import HEAD_START
from sage_core.kernel.control_plane.events import Submitted
from sage_core.kernel.control_plane.recording import Recording
from sage_core.testing import FakeOptions, FakeUpstream
from tests.acceptance.conftest import Sage

#: One request at a time, so that the order of dispatches is the order of decisions.
CONFIG = """\
[scheduler]
requests = "{policy}"

[models.chat]
backend = "openai"
base_url = "{url}"
sequences = 1
health = 0
model = "fake"
"""
#: Bytes of the prompt that keeps the engine busy until all others have arrived; a word of two bytes takes 5 ms.
LONG, WORD = 320, 0.005
CLASSES: tuple[ServiceClass, ...] = ("interactive", "standard", "batch")


class Call(NamedTuple):
    """One request of the load; `at` in ns from its first one, `size` in bytes of prompt."""

    at: int
    size: int
    caller: Caller

    @property
    def asked(self) -> tuple[object, ...]:
        """What does not differ between two servers."""
        caller = self.caller
        return self.size, caller.service_class, caller.priority, caller.ttft


@pytest.fixture
def upstream() -> Iterator[str]:
    """The address of a fake engine behind real HTTP."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fake = FakeUpstream(FakeOptions(sequences=1_000, ttft=0.01, prompt_seconds=WORD))
    asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
    try:
        yield fake.url
    finally:
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def made_up() -> list[Call]:
    """Three classes with targets and priorities of their own, faster than one engine serves them."""
    rng = random.Random(1)
    first = Call(0, LONG, Caller(service_class="interactive", ttft=60_000_000_000, priority=1))
    rest = [name for name in CLASSES for _ in range(12)]
    rng.shuffle(rest)
    callers = {
        "interactive": lambda: Caller(
            service_class="interactive", ttft=rng.randrange(20, 60) * 1_000_000_000, priority=rng.randrange(0, 2)
        ),
        "standard": lambda: Caller(service_class="standard"),
        "batch": lambda: Caller(service_class="batch", priority=-1),
    }
    return [
        first,
        *(Call(100_000_000 + n * 10_000_000, 2 * rng.randrange(2, 5), callers[name]()) for n, name in enumerate(rest)),
    ]


def recorded(file: Path) -> list[tuple[str, Call]]:
    """The load of a recording behind its first request, in order of arrival, with the ids of the requests."""
    with Recording(file) as recording:
        found = [
            (event.outline.id, Call(instant.now, event.outline.sizes[0], event.outline.caller))
            for instant in recording
            for event in instant.inputs
            if isinstance(event, Submitted)
        ][1:]
    start = found[0][1].at
    return [(id, call._replace(at=call.at - start)) for id, call in found]


def send(url: str, calls: list[Call]) -> None:
    """Send each call at its time, and wait for all answers."""
    start = time.monotonic_ns()
    due = threading.Event()

    def one(call: Call) -> None:
        due.wait(max(0.0, (start + call.at - time.monotonic_ns()) / 1e9))
        caller = call.caller
        headers = {"x-sage-class": caller.service_class, "x-sage-priority": str(caller.priority)}
        if caller.ttft is not None:
            headers["x-sage-slo-ttft-ms"] = str(caller.ttft // 1_000_000)
        body = {"model": "chat", "max_tokens": 4, "messages": [{"role": "user", "content": "w " * (call.size // 2)}]}
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            pytest.fail(f"{error.code}: {error.read().decode()}")

    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(one, calls))


class Run(NamedTuple):
    """What a server recorded, and its decision log in the order of dispatches."""

    load: list[tuple[str, Call]]
    log: list[dict[str, Any]]

    def order(self) -> list[Call]:
        """The calls as the server sent them to its engine, behind the one that made them wait."""
        calls = dict(self.load)
        return [calls[line["request"]] for line in self.log[1:]]


def served(sage: Sage, policy: str, upstream: str, calls: list[Call]) -> Run:
    """Serve the load by a `sage serve` of its own."""
    here = Sage(sage.home.with_name(f"home-{policy}"), sage.cwd.with_name(policy))
    here.cwd.mkdir()
    (here.cwd / "sage.toml").write_text(CONFIG.format(policy=policy, url=upstream))
    server = here.start("serve", "--port", "0", "--record", "load.jsonl")
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        while line and "http://" not in line:
            line = server.stdout.readline()
        url = line.split()[-1]
        # The first request waits for the engine to be opened; the load finds it open.
        send(url, [Call(0, 2, Caller(service_class="interactive"))])
        send(url, calls)
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    (log,) = (*here.cwd.rglob("decisions.jsonl"), *here.home.rglob("decisions.jsonl"))
    lines = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda line: line["batch"])
    assert {(line["policy"], line["outcome"]) for line in lines} == {(policy, "done")}
    found = Run(recorded(here.cwd / "load.jsonl"), lines[1:])
    assert len(found.load) == len(calls) == len(found.log)
    # Whoever reads the log later can decide all of it again.
    here("replay", "load.jsonl")
    return found


def positions(calls: list[Call], name: ServiceClass) -> list[int]:
    return [n for n, call in enumerate(calls) if call.caller.service_class == name]


def test_the_decision_log_shows_the_order_that_each_policy_promises(sage: Sage, upstream: str) -> None:
    fifo = served(sage, "fifo", upstream, made_up())
    load = [call for _, call in fifo.load]
    priority, hybrid = (served(sage, policy, upstream, load) for policy in ("priority", "hybrid"))

    # All three were asked the same.
    asked = [sorted(str(call.asked) for _, call in run.load) for run in (fifo, priority, hybrid)]
    assert asked[0] == asked[1] == asked[2]

    order = fifo.order()
    assert order == sorted(order, key=lambda call: call.at)

    order = priority.order()
    assert order == sorted(order, key=lambda call: call.at - call.caller.priority * HEAD_START)
    assert order != sorted(order, key=lambda call: call.at)

    order = hybrid.order()
    chats = [call for call in order if call.caller.service_class == "interactive"]
    assert chats == sorted(chats, key=lambda call: call.at + (call.caller.ttft or 0))
    assert chats != sorted(chats, key=lambda call: call.at)
    last = {name: positions(order, name)[-1] for name in CLASSES}
    assert last["interactive"] < last["standard"] < last["batch"]
    # Before the last chat come only those whose floor was due: of standard about a fifth, of batch a twentieth.
    due = [line["why"] for line in hybrid.log[1 : last["interactive"] + 1]]
    others = [why for why in due if not why.startswith("interactive")]
    assert 1 <= len(others) <= 4
    assert {why.partition(", ")[2] for why in others} == {"floor"}
