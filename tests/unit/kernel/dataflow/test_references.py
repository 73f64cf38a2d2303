from __future__ import annotations

import pytest

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow.graph import Ref
from sage_core.kernel.dataflow.references import literal, parse, show


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("files", Ref(step="files", column="")),
        ("files?", Ref(step="files", column="", optional=True)),
        ("chunk.text", Ref(step="chunk", column="text")),
        ("a.b.c.d?", Ref(step="a", column="b", fields=("c", "d"), optional=True)),
        ("params.q", Ref(step="params", column="q")),
    ],
)
def test_a_reference_reads_and_shows_the_same(text: str, ref: Ref) -> None:
    assert parse(text) == ref
    assert show(ref) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "'a b' is not a reference\n  help: for the text itself write { value = \"a b\" }"),
        ("", "'' is not a reference"),
        ("a..b", "'a..b' is not a reference"),
        ("a.b??", "is not a reference"),
        ("a-b", "is not a reference"),
        ("é", "is not a reference"),
        ("${params.x}", "'${params.x}' is a template, and a port takes a reference\n  help: write \"params.x\""),
        ('say "hi"\n', 'write { value = "say \\"hi\\"\\n" }'),
    ],
)
def test_what_is_no_reference(text: str, message: str) -> None:
    with pytest.raises(BadValue) as error:
        parse(text)
    assert message in str(error.value)


def test_literals_are_spelled_as_toml() -> None:
    assert literal({"a": [1, True, "x\\"]}) == '{ a = [1, true, "x\\\\"] }'
    assert literal("y" * 50) == '"' + "y" * 39 + '…"'
