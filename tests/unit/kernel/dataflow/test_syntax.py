from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow.syntax import describe, explain, parse, read_text


def explained(text: str) -> tuple[str, str, str]:
    with pytest.raises(tomllib.TOMLDecodeError) as error:
        tomllib.loads(text)
    span, message, help = explain(text, str(error.value))
    return str(span), message, help


@pytest.mark.parametrize(
    ("text", "place", "message", "help"),
    [
        ("x = {\n a = 1 }", "1:6", "an inline table { … } must be written on one line", "of its own: [x]"),
        ("[t]\nx = { a = 1, # why\n b = 2 }", "2:14", "an inline table { … } must be written on one line", "[t.x]"),
        ("x = { a = 1\n}", "1:12", "an inline table { … } must be written on one line", "[x]"),
        ("x = [ { a = 1,\n b = 2 } ]", "1:15", "an inline table { … } must be written on one line", "join its lines"),
        ("x = { a = [\n1 ], }", "2:6", "an inline table { … } must not end with a comma", "remove the comma"),
        ("x = True", "1:5", "True is not a TOML value", "write true"),
        ("x = None # no", "1:5", "None is not a TOML value", "TOML has no null: leave the key out"),
        ("x = { a = params.q }", "1:11", "params.q is not a TOML value", 'a text is quoted: "params.q"'),
        ("x =", "1:4", "the file ends where a value is expected", ""),
        ("x =  # nothing\n", "1:6", "a value is missing", "write key"),
        ("x = 'a\n", "1:7", "the text is not closed on its line", "end it with"),
        ("[a]\n[a]", "2:2", "key 'a' is defined twice, first at 1:2", "keep one of them"),
        ("\ufeffa = 1", "1:1", "the file starts with a byte order mark", "save it as UTF-8 without one"),
        ("é = 1", "1:1", "not valid TOML: invalid statement", ""),
    ],
)
def test_tomllibs_messages_in_the_users_terms(text: str, place: str, message: str, help: str) -> None:
    found = explained(text)
    assert found[:2] == (place, message)
    assert help in found[2]


def test_tomllib_judges_not_the_grammar() -> None:
    assert parse("f", "a.b = 1\na.c = 2\n[d]\n") == {"a": {"b": 1, "c": 2}, "d": {}}


def test_line_ends_are_folded_before_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_bytes(b"a = 1\r\nb = 2 3\r\n")
    with pytest.raises(InvalidWorkflow, match=r"w\.toml:2:7: not valid TOML"):
        parse(str(path), read_text(path))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be read: Not a directory"):
        read_text(tmp_path / "file" / "w.toml")


def test_definitions_have_names() -> None:
    assert describe(("steps", "a")) == "step 'a'"
    assert describe(("steps", "a", "in")) == "key 'steps.a.in'"
