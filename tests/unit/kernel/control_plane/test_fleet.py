"""The ledger: credits that move one by one, the index of what is open, and what an engine is learnt to cost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from sage_core.common.errors import PluginError
from sage_core.common.records import Candidate, Capacity, EngineInfo, Kind, Needs, Work
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor
from sage_core.kernel.control_plane.fleet import BATCH_LEAST, BATCH_SECONDS, Ledger, Selects


def info(name: str, sequences: int = 1, batch_tokens: int = 16_384) -> EngineInfo:
    capacity = Capacity(sequences=sequences, batch_tokens=batch_tokens)
    return EngineInfo(id=name, model="m", backend="b", kinds=("embed",), capacity=capacity, identity="i")


def ledger(*engines: EngineInfo, selector: Selects | None = None) -> Ledger:
    made = Ledger(EmbeddingExecutor(), selector)
    for engine in engines:
        made.add(engine, "lane")
    return made


def work(kind: Kind = "rerank", lane: str = "lane", *, tokens_in: int = 0, tokens_out: int = 0) -> Work:
    return Work(id="w", lane=lane, kind=kind, arrival=0, tokens_in=tokens_in, tokens_out=tokens_out)


def test_an_engine_is_open_until_its_last_credit_is_taken() -> None:
    made = ledger(info("e", sequences=2))
    seats = made.seats("e", "lane")
    assert seats is not None
    made.take(seats, 1.0, work())
    assert [place.running for place in made.open(work())] == [1]
    made.take(seats, 2.0, work())
    assert not made.room("lane")
    assert list(made.open(work())) == []
    made.give(seats, 1.0, work(), read=False)
    assert [(place.running, place.load) for place in made.open(work())] == [(1, 2.0)]


def test_tokenizing_has_seats_of_its_own() -> None:
    made = ledger(info("e"))
    seats = made.seats("e", "lane")
    assert seats is not None
    made.take(seats, 1.0, work())
    assert not made.room("lane")
    assert made.room("lane:tokenize")


def test_the_least_loaded_is_picked_where_no_selector_is_named() -> None:
    made = ledger(info("a", 2), info("b", 2))
    seats = made.seats("a", "lane")
    assert seats is not None
    made.take(seats, 1.0, work())
    place = made.pick(work())
    assert place is not None
    assert place.engine == "b"


def test_a_selector_chooses_and_may_refuse() -> None:
    class Last:
        def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
            return candidates[-1] if work.tokens_in else None

    made = ledger(info("a"), info("b"), selector=Last())
    place = made.pick(work(tokens_in=5))
    assert place is not None
    assert place.engine == "b"
    assert made.pick(work()) is None


def test_a_selector_that_raises_is_named_once_and_the_least_loaded_is_picked(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
            raise PluginError("pretty", "picked 'x', which is not a candidate")

    made = ledger(info("a"), info("b"), selector=Broken())
    for _ in range(2):
        place = made.pick(work())
        assert place is not None
        assert place.engine == "a"
    assert made.faults == ["PluginError: plugin 'pretty': picked 'x', which is not a candidate"]
    assert [record.action for record in caplog.records] == ["selector_replaced"]  # type: ignore[attr-defined]


def test_an_engine_that_was_struck_off_offers_nothing() -> None:
    made = ledger(info("e"))
    assert made.remove("e") is not None
    assert made.remove("e") is None
    assert not made.room("lane")
    assert made.capacity("lane") is None


def test_what_an_engine_cost_is_forgotten_with_it() -> None:
    made = ledger(info("e"))
    first = made.cost(work("embed", tokens_in=1_000))
    made.learn(work("embed"), "e", 1_000_000, 1_000.0)
    assert made.cost(work("embed", tokens_in=1_000)) > first
    made.remove("e")
    made.add(info("e"), "lane")
    assert made.cost(work("embed", tokens_in=1_000)) == first


def wrote(made: Ledger, engine: str, tokens: int, seconds: float) -> None:
    """Have an engine answer a chat."""
    chat = work("generate", tokens_in=100, tokens_out=tokens)
    seats = made.seats(engine, "lane")
    assert seats is not None
    met = made.meets(chat, seats.place)
    made.take(seats, 1.0, chat)
    made.unload(seats, chat)
    made.first(seats, chat, met, 0.1)
    made.give(seats, 1.0, chat, read=True)
    made.wrote(chat, seats, tokens, 0.1 + seconds, first=0.1, met=met)


def test_costs_are_learnt_for_each_engine_and_kind() -> None:
    made = ledger(info("e"))
    first = made.cost(work("embed", tokens_in=1_000))
    made.learn(work("tokenize", "lane:tokenize"), "e", 1_000_000, 0.001)
    for _ in range(400):
        wrote(made, "e", 101, 5.0)
    assert made.cost(work("embed", tokens_in=1_000)) == first
    made.learn(work("embed"), "e", 1_000_000, 1_000.0)
    assert made.cost(work("embed", tokens_in=1_000)) == pytest.approx(1.0, rel=0.01)
    assert made.cost(work("generate", tokens_out=10)) == pytest.approx(0.5, rel=0.1)


def test_what_engines_take_decides_what_is_predicted_there() -> None:
    made = ledger(info("slow"), info("quick"))
    for _ in range(400):
        wrote(made, "slow", 101, 10.0)
        wrote(made, "quick", 101, 1.0)
    chat = work("generate", tokens_in=100, tokens_out=50)
    slow, quick = made.open(chat)
    assert made.tpot(chat, slow) == pytest.approx(0.1, rel=0.1)
    assert made.tpot(chat, quick) == pytest.approx(0.01, rel=0.1)
    assert made.ttft(chat, quick) < made.ttft(chat, slow)
    assert made.cost(chat, quick) < 0.2 * made.cost(chat, slow)
    made.pace("quick", 0.03, 1)
    seats = made.seats("quick", "lane")
    assert seats is not None
    made.take(seats, 0.1, work())
    # What is observed goes before what is learnt.
    assert made.tpot(chat, seats.place) == pytest.approx(0.03, rel=0.1)


def test_an_engine_begins_with_what_one_of_the_same_weights_had_learnt() -> None:
    made = ledger(info("e"))
    for _ in range(400):
        wrote(made, "e", 101, 10.0)
    made.remove("e")
    made.add(info("f"), "lane")
    chat = work("generate", tokens_in=100, tokens_out=50)
    (place,) = made.open(chat)
    assert made.tpot(chat, place) == pytest.approx(0.1, rel=0.1)


def test_a_batch_holds_what_is_computed_in_a_quarter_of_a_second() -> None:
    made = ledger(info("e"))

    def budget() -> int:
        return made.budget("e").batch_tokens

    for tokens, seconds in ((100_000, 10.0), (400_000, 200.0), (9_000_000, 90_000.0)):
        before = budget()
        made.learn(work("embed"), "e", tokens, seconds)
        assert budget() <= before
        assert made.cost(work("embed", tokens_in=budget())) <= BATCH_SECONDS or budget() == BATCH_LEAST
    assert budget() == BATCH_LEAST
    made.learn(work("embed"), "e", 10**9, 1.0)
    assert budget() == 16_384


def test_an_engine_that_says_less_is_given_less() -> None:
    assert ledger(info("e", batch_tokens=300)).budget("e").batch_tokens == 300


def test_short_texts_hardly_shrink_the_batches_of_long_ones() -> None:
    made = ledger(info("e"))
    made.learn(work("embed"), "e", 10_000, 1.0)
    before = made.budget("e").batch_tokens
    # Ten queries of five tokens, whose time is the call's own: twenty times as dear a token.
    for _ in range(10):
        made.learn(work("embed"), "e", 5, 0.01)
    assert made.budget("e").batch_tokens > 0.85 * before


def chat(name: str, tokens_in: int, prefix: tuple[int, ...] = ()) -> Work:
    return Work(id=name, lane="lane", kind="generate", arrival=0, tokens_in=tokens_in, tokens_out=10, prefix=prefix)


def test_room_is_told_anew_after_each_move_of_a_credit() -> None:
    capacity = Capacity(sequences=4, prefill_tokens=100)
    made = ledger(msgspec.structs.replace(info("a"), capacity=capacity))
    seats = made.seats("a", "lane")
    assert seats is not None
    first, second = chat("first", 80), chat("second", 50)
    assert [place.engine for place in made.open(second)] == ["a"]
    made.take(seats, 1.0, first)
    assert not made.open(second)
    assert [place.prefill for place in made.open(chat("small", 20))] == [80]
    made.unload(seats, first)
    assert [place.prefill for place in made.open(second)] == [0]
    made.give(seats, 1.0, first, read=True)
    assert (seats.running, seats.prefill, seats.context, seats.load) == (0, 0, 0, 0.0)


def test_what_engines_know_of_a_prompt_is_told_to_selectors_that_look_at_it() -> None:
    class Sees:
        def __init__(self, local: bool) -> None:
            self.local = local
            self.seen: list[dict[str, float]] = []

        def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
            self.seen.append({each.id: each.local for each in candidates})
            return candidates[0]

    for looks in (True, False):
        selector = Sees(looks)
        made = ledger(info("a", 4), info("b", 4), selector=selector)
        seats = made.seats("b", "lane")
        assert seats is not None
        made.take(seats, 1.0, chat("one", 512, (1, 2, 3)))
        made.pick(chat("two", 512, (1, 2, 9)))
        made.pick(chat("other", 512, (7, 8, 9)))
        assert selector.seen == [{"a": 0.0, "b": 0.5 if looks else 0.0}, {"a": 0.0, "b": 0.0}]
