"""Records are immutable, keyword-only and encodable."""

from __future__ import annotations

import msgspec
import pytest

from sage_core import Dispatch, Idle, Place, Shed, Work
from sage_core.common import records
from sage_core.common.records import Decision, Record

WORK = Work(id="w", lane="a", kind="embed", arrival=1)
CLASSES = [it for it in vars(records).values() if isinstance(it, type) and issubclass(it, Record)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_record_is_frozen_and_keyword_only(kind: type[Record]) -> None:
    assert kind.__struct_config__.frozen
    if kind.__struct_fields__:
        with pytest.raises(TypeError):
            kind(*["positional"])


@pytest.mark.parametrize(
    "decision", [Dispatch(work=WORK, place=Place(engine="e")), Shed(work=WORK, reason="late"), Idle()]
)
def test_decisions_can_be_told_apart_after_a_journey(decision: Decision) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision) == decision


def test_equal_records_are_equal() -> None:
    assert WORK == Work(id="w", lane="a", kind="embed", arrival=1) != Work(id="w", lane="a", kind="embed", arrival=2)
