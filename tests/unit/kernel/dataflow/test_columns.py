from __future__ import annotations

import pytest

from sage_core.kernel.dataflow.columns import Columns, Found, Made
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.graph import Param, Port, Ref, Signature, Type
from sage_core.kernel.dataflow.references import parse

STR, INT = Type(kind="str"), Type(kind="int")
MAYBE = Type(kind="record", name="Maybe", optional=True, fields={"n": INT, "any": Type(kind="any")})


def columns() -> Columns:
    made = Columns({"q": Param(name="q", type="string"), "k": Param(name="k", type="int", required=False)}, Problems())
    made.steps = {
        "one": Made(columns={"text": STR}, out="one"),
        "two": Made(columns={"text": STR, "n": INT}, out=""),
        "deep": Made(columns={"maybe": MAYBE, "table": Type(kind="dict", item=INT)}, out="one"),
        "sink": Made(columns={}, signature=Signature(operator="s", shape="sink"), out=""),
        "open": Made(),
    }
    return made


def find(text: str) -> tuple[Found | None, list[str]]:
    made = columns()
    found = made.find(parse(text), ("p",))
    return found, [problem.message for problem in made._problems]


@pytest.mark.parametrize(
    ("text", "type_", "grain"),
    [
        ("one.text", STR, "one"),
        ("one", STR, "one"),
        ("one?", Type(kind="str", optional=True), "one"),
        ("two", Type(kind="record", name="two", fields={"text": STR, "n": INT}), ""),
        ("params.q", STR, ""),
        ("params.k", Type(kind="int", optional=True), ""),
        ("deep.maybe.n", Type(kind="int", optional=True), "one"),
        ("deep.maybe.any.thing", Type(kind="any"), "one"),
        ("deep.table.key", INT, "one"),
        ("open.whatever.else", None, None),
    ],
)
def test_what_a_reference_stands_for(text: str, type_: Type | None, grain: str | None) -> None:
    found, problems = find(text)
    assert problems == []
    assert found is not None
    assert (found.type, found.grain) == (type_, grain)


def test_the_only_column_of_a_step_is_filled_in() -> None:
    found, _ = find("one")
    assert found is not None
    assert found.ref == Ref(step="one", column="text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("two.m", "step 'two' has no column 'm'"),
        ("tow.n", "no step is named 'tow'"),
        ("sink", "step 'sink' has no columns: it returns nothing"),
        ("deep.maybe.m", "'deep.maybe' (Maybe | None) has no field 'm'"),
        ("params", "'params' is no column; name one param"),
        ("run.id", "'run.id': 'run' is no step; a port takes columns"),
    ],
)
def test_what_stands_for_nothing(text: str, message: str) -> None:
    assert find(text) == (None, [message])


def test_a_field_written_as_a_column_is_shown_where_it_is() -> None:
    made = columns()
    made.find(parse("deep.n"), ("p",))
    assert made._problems[0].help == "it is a field of 'maybe': write deep.maybe.n"


def test_a_null_fits_where_the_port_or_the_condition_allows_it() -> None:
    made = columns()
    found = made.find(parse("params.k"), ("p",))
    assert found is not None
    made.fits(found, Port(name="n", type=Type(kind="int", optional=True)), "op", ("p",))
    made.fits(found, Port(name="n", type=INT), "op", ("p",), frozenset({"params.k"}))
    assert made._problems == []
    made.fits(found, Port(name="n", type=STR), "op", ("p",), frozenset({"params.k"}))
    assert made._problems[0].message == "port 'n' of 'op' takes str, but 'params.k' is int | None"


def test_a_record_that_does_not_fit_says_why() -> None:
    made = columns()
    found = made.find(parse("two"), ("p",))
    assert found is not None
    for fields in ({"text": STR, "title": STR}, {"n": STR}):
        made.fits(found, Port(name="r", type=Type(kind="record", name="R", fields=fields)), "op", ("p",))
    assert [problem.help for problem in made._problems] == ["it has no title", "its n is int, not str"]


def test_what_is_read_and_what_is_only_waited_for() -> None:
    made = columns()
    made.find(parse("one.text"), ("p",))
    made.find(parse("params.q"), ("p",))
    made.wait("two", ("p",))
    assert (made.read, made.awaited, made.read_params) == ({"one"}, {"two"}, {"q"})
    made.wait("gone", ("p",))
    assert made.rows("gone", ("q",)) is None
    assert [problem.message for problem in made._problems] == ["no step is named 'gone'"] * 2
