"""The processes of the suite `gateway`: the load counts what the upstream sends, and what is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sage_bench.gateway.load import Found, Load, Order
from sage_bench.gateway.upstream import Upstream
from sage_bench.measures.gateway import Gateways, _percentile
from sage_bench.measures.open_streams import OpenStreams, rises
from sage_bench.suite import Bench

from sage_core import SageError


def load(order: Order, protocol: Callable[[], asyncio.Protocol] = Upstream) -> Found:
    async def body() -> Found:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        changed = {field: getattr(order, field) for field in order.__struct_fields__}
        changed["port"] = server.sockets[0].getsockname()[1]
        try:
            return await Load(Order(**changed)).go()
        finally:
            server.close()

    return _run(body)


def _run(body: Callable[[], Awaitable[Found]]) -> Found:
    async def bounded() -> Found:
        return await asyncio.wait_for(body(), 20)

    return asyncio.run(bounded())


def test_a_closed_loop_gets_its_answers() -> None:
    found = load(Order(port=0, kind="closed", connections=4, seconds=0.1))
    assert found.good >= 4
    assert (found.bad, found.problem) == (0, "")
    assert len(found.latencies) == found.good


def test_an_open_loop_begins_when_the_time_has_come() -> None:
    found = load(Order(port=0, kind="open", rate=200, seconds=0.3, seed=1))
    assert found.bad == 0
    assert 20 < found.good < 120


def test_a_stream_has_the_events_that_were_asked_for_an_end_and_its_mark() -> None:
    found = load(Order(port=0, kind="streams", connections=2, events=7, seconds=0.05))
    assert found.bad == 0
    assert found.events == found.good * 9


def test_held_streams_are_counted_while_they_live() -> None:
    found = load(Order(port=0, kind="hold", connections=5, events=100, seconds=0.05))
    assert (found.good, found.bad) == (5, 0)


def test_streams_that_end_or_are_left_are_followed_by_others() -> None:
    found = load(Order(port=0, kind="soak", connections=20, events=1, seconds=4.5, seed=3))
    assert (found.bad, found.problem) == (0, "")
    assert found.good >= 20
    assert found.left >= 1
    assert found.fewest >= 10


def test_a_rise_is_told_from_flat_memory_that_is_noisy() -> None:
    noise = [0.3 * (-1) ** n for n in range(240)]
    flat = [(n / 2, 100 + noise[n]) for n in range(240)]
    assert max(map(abs, rises(flat))) < 0.2
    assert rises([(at, mib + at / 60 * 3) for at, mib in flat]) == pytest.approx([3.0] * 10, abs=0.2)


class _Refusing(Upstream):
    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy")


class _Dying(Upstream):
    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        self._transport.close()


@pytest.mark.parametrize(
    ("protocol", "problem"), [(_Refusing, "status 503: b'busy'"), (_Dying, "the connection was lost")]
)
def test_what_is_no_answer_is_counted_apart(protocol: type[Upstream], problem: str) -> None:
    found = load(Order(port=0, kind="streams", connections=1, seconds=0.02), protocol)
    assert found.good == 0
    assert found.bad >= 1
    assert problem in found.problem


def test_percentiles_are_of_what_is_there() -> None:
    assert _percentile([5.0], 99) == 5.0
    assert _percentile([float(value) for value in range(101)], 50) == 50.0


def test_an_unknown_gateway_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    bench = Bench(work=tmp_path_factory.mktemp("bench"), seed=0, repeat=1)
    with pytest.raises(SageError, match="no gateway is called 'nginx'; known: bare, sage"):
        Gateways(gateways=("nginx",)).measure(bench)


def test_memory_is_looked_at_while_streams_are_open(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(work=tmp_path_factory.mktemp("bench"), seed=0, repeat=1)
    measured = OpenStreams(gateway="bare", streams=5, seconds=12.6, events=3, filling=10).measure(bench)
    figures = {figure.name.partition(": ")[2]: figure for figure in measured.figures}
    assert figures["streams that broke"].value == 0
    assert figures["streams that ended"].value > 5
    assert figures["memory with 5 streams open"].value > 10
    assert len(figures["rise of its memory"].values) == 10
    assert "of 13 s: " in capsys.readouterr().err
