"""The load on a gateway, from a process of its own: ``python -m sage_bench.gateway.load``, one order a line.

Orders and answers are JSON. It speaks HTTP by hand: a client library would take more of the machine than some gateways.
There is no limit to its connections; in an open loop a request begins when its time has come, whatever became of
others, and its latency counts from then.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import Literal, cast

import msgspec

from sage_bench.gateway.loops import run

#: Share of streams that their reader leaves before the end.
LEAVE = 0.2
CHAT = [{"role": "user", "content": "What is known about the layout of a page, and who looks at it? " * 4}]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do to whom."""

    port: int
    kind: Literal["closed", "open", "streams", "hold", "soak"]
    model: str = "bench"
    key: str = ""
    #: Connections of a closed loop, and streams open at once.
    connections: int = 32
    #: Requests a second of an open loop.
    rate: float = 0.0
    seconds: float = 3.0
    #: Events of a stream; of those that come once a second, at most.
    events: int = 200
    seed: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    #: Answers that were whole and had status 200, and others.
    good: int = 0
    bad: int = 0
    seconds: float = 0.0
    #: Milliseconds of each good answer; of a stream to its first event.
    latencies: list[float] = []
    events: int = 0
    #: Streams that their reader left before their end, and fewest that were open at a time once all had been.
    left: int = 0
    fewest: int = 0
    #: What was wrong with the first bad answer.
    problem: str = ""


class Connection(asyncio.Protocol):
    """Asks one request after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[str] = self._loop.create_future()
        self._clear()
        self.open = False

    def _clear(self) -> None:
        self._status = 0
        self._head = b""
        self._left = -1
        self._tail = b""
        self.events = 0
        self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._end(f"the connection was lost: {exc}")

    def ask(self, request: bytes) -> asyncio.Future[str]:
        """Send a request; the answer is what was wrong with it, or nothing."""
        self._clear()
        self._done = self._loop.create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        if not self._status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end].lower(), self._head[end + 4 :]
            self._status = int(head[9:12])
            at = head.find(b"\r\ncontent-length:")
            if at >= 0:
                self._left = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if self._left >= 0:
            self._left -= len(data)
            self._tail = (self._tail + data)[-200:]
            if self._left <= 0:
                self._end("" if self._status == 200 else f"status {self._status}: {self._tail!r}")
            return
        found = data.count(b"data: ")
        if found and not self.first:
            self.first = time.perf_counter()
        self.events += found
        self._tail = (self._tail + data)[-200:]
        if self._tail.endswith(b"0\r\n\r\n") and (data == b"0\r\n\r\n" or self._tail.endswith(b"\r\n0\r\n\r\n")):
            self._end("" if b"[DONE]" in self._tail and self._status == 200 else f"ended in {self._tail!r}")

    def _end(self, problem: str) -> None:
        if not self._done.done():
            self._done.set_result(problem)

    @property
    def rests(self) -> bool:
        """Whether its answer has ended, and another may follow."""
        return self.open and self._done.done() and not self._done.result()

    def close(self) -> None:
        """Leave."""
        self._transport.close()


class Load:
    """One order being carried out."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.idle: list[Connection] = []
        self.good, self.bad, self.events = 0, 0, 0
        self.latencies: list[float] = []
        self.problem = ""
        self.left, self.live, self.lives = 0, 0, list[int]()
        self.request = self.asking(order.events if order.kind in ("streams", "hold") else 0)

    def asking(self, events: int) -> bytes:
        """A request: for a stream of so many events, or for an answer that comes as a whole."""
        order = self.order
        fields: dict[str, object] = {"model": order.model, "messages": CHAT, "max_tokens": events or 16}
        if events:
            fields["stream"] = True
        if order.kind in ("hold", "soak"):
            fields["user"] = "hold"
        body = msgspec.json.encode(fields)
        key = f"authorization: Bearer {order.key}\r\n" if order.key else ""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{order.port}\r\n{key}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def connection(self) -> Connection:
        """One that is open and asks nothing."""
        while self.idle:
            found = self.idle.pop()
            if found.open:
                return found
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, "127.0.0.1", self.order.port)
        return made

    async def one(self, due: float) -> None:
        """One request, from its time on."""
        connection = await self.connection()
        problem = await connection.ask(self.request)
        now = time.perf_counter()
        self.events += connection.events
        if problem:
            self.bad += 1
            self.problem = self.problem or problem
            connection.close()
            return
        self.good += 1
        self.latencies.append(((connection.first or now) - due) * 1e3)
        self.idle.append(connection)

    async def closed(self) -> None:
        """As many at a time as there are connections, until time is up."""
        until = time.perf_counter() + self.order.seconds

        async def again() -> None:
            while (now := time.perf_counter()) < until:
                await self.one(now)

        await asyncio.gather(*(again() for _ in range(self.order.connections)))

    async def opened(self) -> None:
        """Poisson arrivals."""
        draw = random.Random(self.order.seed)
        began = due = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while due < began + self.order.seconds:
                due += draw.expovariate(self.order.rate)
                wait = due - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                tasks.create_task(self.one(due))

    async def hold(self) -> None:
        """Open streams, keep them for a while, and leave."""
        connections = []
        for _ in range(self.order.connections):
            connections.append(await self.connection())
            connections[-1].ask(self.request)
        # A slow gateway is given time to open them all.
        until = time.perf_counter() + 30.0
        while not all(each.events or not each.open for each in connections):
            if time.perf_counter() > until:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(self.order.seconds)
        for connection in connections:
            self.good += connection.open and connection.events > 0
            self.events += connection.events
            connection.close()
        self.bad = len(connections) - self.good

    async def soak(self) -> None:
        """Keep streams open, each of its own length, and put another in the place of each that ends or is left."""
        draw = random.Random(self.order.seed)
        until = time.perf_counter() + self.order.seconds
        tasks = [asyncio.create_task(self._place(draw, until)) for _ in range(self.order.connections)]
        while time.perf_counter() < until:
            await asyncio.sleep(min(1.0, self.order.seconds / 20))
            self.lives.append(self.live)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _place(self, draw: random.Random, until: float) -> None:
        while time.perf_counter() < until:
            connection = await self.connection()
            self.live += 1
            try:
                # Some readers lose interest in the middle.
                patience = draw.uniform(0.5, self.order.events) if draw.random() < LEAVE else None
                ended = connection.ask(self.asking(draw.randint(1, self.order.events)))
                await asyncio.wait((ended,), timeout=patience)
            finally:
                self.live -= 1
                self.events += connection.events
                if not connection.rests:
                    connection.close()
            if not ended.done():
                self.left += 1
            elif problem := ended.result():
                self.bad += 1
                self.problem = self.problem or problem
            else:
                self.good += 1
                self.idle.append(connection)

    async def go(self) -> Found:
        """Do it all."""
        began = time.perf_counter()
        kinds = {
            "closed": self.closed,
            "streams": self.closed,
            "open": self.opened,
            "hold": self.hold,
            "soak": self.soak,
        }
        await kinds[self.order.kind]()
        seconds = time.perf_counter() - began
        for connection in self.idle:
            connection.close()
        return Found(
            good=self.good,
            bad=self.bad,
            seconds=seconds,
            latencies=self.latencies,
            events=self.events,
            left=self.left,
            fewest=min(self.lives[1:], default=0),
            problem=self.problem,
        )


async def obey() -> None:
    """Obey one order after another."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        found = await Load(msgspec.json.decode(line, type=Order)).go()
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run(obey())
