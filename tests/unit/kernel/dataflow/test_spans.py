from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_core.kernel.dataflow.spans import Span, Spans

TEXT = '''\
a.b = 1 # comment
"q k" = { y = [1, "z"], 'l'.m = 2 }  # another
[x]
"é" = "ü" # two bytes each
deep = { "ключ" = "v", list = [ { n = 1 }, # inside
  { n = 2 } ] }
[[t.u]]
k = """a
b"""
[t.u.v]
w = 1
[[t.u]]
[t.u.v]
w = 2
["quo\\u0074ed"."a.b"]
c = 1
'''


def at(path: tuple[str | int, ...], part: str) -> tuple[str, Span]:
    span = Spans(TEXT).find(path, part)
    return TEXT.split("\n")[span.line - 1][span.column - 1 :][: span.length], span


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("a", "b"), "b", "1"),
        (("q k",), '"q k"', "{ y = [1, \"z\"], 'l'.m = 2 }"),
        (("q k", "y", 1), '"z"', '"z"'),
        (("q k", "l", "m"), "m", "2"),
        (("x", "é"), '"é"', '"ü"'),
        (("x", "deep", "ключ"), '"ключ"', '"v"'),
        (("x", "deep", "list", 1, "n"), "n", "2"),
        (("t", "u", 0, "v", "w"), "w", "1"),
        (("t", "u", 1, "v", "w"), "w", "2"),
        (("quoted", "a.b", "c"), "c", "1"),
        (("x",), "x", "x"),
    ],
)
def test_keys_and_values(path: tuple[str | int, ...], key: str, value: str) -> None:
    assert at(path, "key")[0] == key
    assert at(path, "value")[0] == value


def test_a_value_of_many_lines_is_marked_on_its_first() -> None:
    assert at(("t", "u", 0, "k"), "value") == ('"""a', Span(line=8, column=5, length=4))


def test_what_is_not_written_is_shown_at_the_nearest_key_above() -> None:
    assert at(("x", "deep", "list", 7, "none"), "key")[0] == "list"
    assert str(at(("x", "gone", "more"), "value")[1]) == "3:2"
    assert str(at(("gone",), "value")[1]) == "1:1"
    assert str(at((), "value")[1]) == "1:1"


@pytest.mark.parametrize(
    ("text", "path", "first", "second"),
    [
        ("[a]\nx = 1\n[a]\n", ("a",), "1:2", "3:2"),
        ("[a]\nx = 1\ny = 2\nx = 3\n", ("a", "x"), "2:1", "4:1"),
        ("x = { a = 1, a = 2 }\n", ("x", "a"), "1:7", "1:14"),
        ("[a]\nb = 1\n[a.b]\nc = 1\n", ("a", "b"), "2:1", "3:4"),
        ("a = { b = 1 }\n[a.c]\n", ("a",), "1:1", "2:2"),
        ("a.b = 1\n[a]\nb = 2\n", ("a",), "1:1", "2:2"),
        ("[[a]]\n[a]\n", ("a",), "1:3", "2:2"),
    ],
)
def test_what_is_defined_twice(text: str, path: tuple[str, ...], first: str, second: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    found, one, two = Spans(text).repeated[0]
    assert (found, str(one), str(two)) == (path, first, second)


def test_nothing_is_repeated_in_a_valid_file() -> None:
    tomllib.loads(TEXT)
    assert Spans(TEXT).repeated == []


def test_plain_search_finds_headers_and_keys_without_the_parser() -> None:
    script = (
        "import sys; sys.modules['tree_sitter'] = sys.modules['tree_sitter_toml'] = None\n"
        "from sage_core.kernel.dataflow.spans import Spans\n"
        'spans = Spans(\'sage = 1\\n[steps.a]\\nuse = "x"\\n  in = {}\\n[steps."b"]\\nuse = 1\\n\')\n'
        "print(spans.find(('steps', 'b', 'use')), spans.find(('steps', 'a', 'in', 'x')), spans.find(('sage',)), "
        "spans.find(('steps', 'b'), 'key'), spans.find(('gone',)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.split() == ["6:1", "4:3", "1:1", "5:2", "1:1"]


_KEYS = st.text(min_size=1, max_size=6) | st.sampled_from(["a", "b.c", "steps", "é", "日本", "x y", '"', "\t"])
_SCALARS = (
    st.integers(-(10**9), 10**9)
    | st.booleans()
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_TABLES = st.recursive(
    st.dictionaries(_KEYS, _SCALARS, max_size=3),
    lambda inner: st.dictionaries(
        _KEYS, _SCALARS | inner | st.lists(_SCALARS, max_size=3) | st.lists(inner, min_size=1, max_size=2), max_size=4
    ),
    max_leaves=10,
)


def written(value: Any) -> str:
    """A value or an inline table as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(key)} = {written(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[\n  " + ", # one\n  ".join(map(written, value)) + "\n]" if value else "[]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def document(tree: dict[str, Any], prefix: str = "", depth: int = 0) -> str:
    """A tree as TOML: plain values first, tables under headers, inline ones below the third level."""
    lines, sections = [], []
    for key, value in tree.items():
        name = prefix + written(key)
        if isinstance(value, dict) and depth < 3:
            sections.append(f"[{name}]\n{document(value, name + '.', depth + 1)}")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value) and depth < 3:
            sections += [f"[[{name}]]\n{document(item, name + '.', depth + 1)}" for item in value]
        else:
            lines.append(f"{written(key)} = {written(value)}\n")
    return "".join(lines + sections)


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree


@given(_TABLES)
@settings(max_examples=150, deadline=None)
def test_places_agree_with_tomllib(tree: dict[str, Any]) -> None:
    """What stands at a value's place parses to that value, whatever the layout of tables, arrays and quoted keys."""
    text = document(tree)
    assert tomllib.loads(text) == tree
    spans = Spans(text)
    assert spans.repeated == []
    lines = text.split("\n")
    for path, value in leaves(tomllib.loads(text)):
        span = spans.find(path)
        found = lines[span.line - 1][span.column - 1 :][: span.length]
        assert tomllib.loads(f"x = {found}")["x"] == value
