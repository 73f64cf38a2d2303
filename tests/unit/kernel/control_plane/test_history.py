"""What can be told about a request at each point of its life, and how much of it is remembered."""

from __future__ import annotations

import msgspec
import pytest

from sage_core.common.clock import SECOND
from sage_core.common.records import Caller
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.history import LINES, REMEMBERED, Description, History
from tests.unit.kernel.control_plane.test_decisions import line
from tests.unit.kernel.control_plane.test_pool import Deployment


def told(field: Deployment, request: str) -> Description:
    found = field.manager.describe(request)
    assert found is not None
    return found


def test_a_request_is_told_from_its_arrival_to_its_end() -> None:
    field = Deployment()
    outline = events.Outline(
        id="a", kind="generate", model="m", lane="m", caller=Caller(tenant="t", ttft=SECOND), sizes=(400,), max_tokens=8
    )
    field.now = 10
    field.feed(events.Submitted(outline=outline))
    field.ask("b", "c")
    assert [(name, told(field, name).state, told(field, name).ahead) for name in "abc"] == [
        ("a", "dispatched", 0),
        ("b", "queued", 0),
        ("c", "queued", 1),
    ]
    found = told(field, "a")
    assert (found.tenant, found.engine, found.tokens_in, found.tokens_out) == ("t", "m#1", 102, 8)
    assert found.decisions == ()
    field.feed(events.Started(ticket=field.running["a"].ticket, seconds=0.2))
    assert told(field, "a").state == "streaming"
    field.now = SECOND
    field.finish("a")
    found = told(field, "a")
    assert (found.state, found.age, [each.outcome for each in found.decisions]) == ("ended", SECOND - 10, ["done"])
    assert field.manager.describe("nobody") is None


def test_who_waits_for_an_engine_to_open_is_told_so() -> None:
    field = Deployment()
    field.now = 1
    field.manager.step([events.PoolGone(lane="m")], 1)
    outline = events.Outline(id="a", kind="rerank", model="x", lane="x", caller=Caller(), sizes=(4,))
    field.manager.step([events.Submitted(outline=outline)], 2)
    assert told(field, "a").state == "waiting"


def test_a_failed_attempt_shows_while_the_next_one_waits() -> None:
    field = Deployment(members=2, min=1)
    field.ask("a", "b")
    field.fail("a")
    field.finish("b")
    found = told(field, "a")
    assert (found.state, found.attempts) == ("dispatched", 1)


def test_the_latest_requests_and_lines_are_remembered() -> None:
    history = History()
    for number in range(REMEMBERED + 1):
        history.add(line(number))
    assert history.past("r0") is None
    assert history.past("r1") is not None
    for number in range(LINES + 5):
        history.add(msgspec.structs.replace(line(9), batch=number))
    found = history.past("r9")
    assert found is not None
    assert [each.batch for each in found.decisions] == list(range(5, LINES + 5))


@pytest.mark.parametrize(("engines", "why"), [(1, "the only place open"), (3, "the least loaded of 3")])
def test_the_record_of_a_decision_says_what_was_open_and_why_this(engines: int, why: str) -> None:
    field = Deployment(members=engines, min=engines)
    field.ask("a")
    field.finish("a", seconds=0.5)
    (found,) = told(field, "a").decisions
    assert (found.open, len(found.candidates), found.candidates[0].engine, found.why) == (
        engines,
        engines,
        found.engine,
        why,
    )
    assert (found.counted_out, found.actual, found.total) == (8, 0.5, 0)
    assert found.predicted > found.predicted_ttft > 0
