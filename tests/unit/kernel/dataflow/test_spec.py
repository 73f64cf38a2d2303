from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow import spec
from sage_core.kernel.dataflow.check import check_tree, load
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.graph import decode, encode
from tests.workflows import sample_operators

VALID = Path(__file__).parents[3] / "workflows" / "valid"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder / "main.toml"


def read(path: Path, profile: str | None = None) -> spec.Document:
    problems = Problems()
    document = spec.read(path, problems, profile)
    document.raise_if(problems)
    return document


def test_the_including_file_has_the_last_word_and_lists_are_replaced(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='include = ["parts/b.toml"]\n[defaults]\ntimeout = "1s"\non_error = "skip"\nretry = { on = ["a"] }\n',
        parts__b='include = ["c.toml"]\nname = "b"\n[defaults]\ntimeout = "2s"\nretry = { on = ["b", "c"], max = 1 }\n',
        parts__c='[defaults]\ntimeout = "3s"\n[slo]\nend_to_end = "1s"\n',
    )
    document = read(main)
    assert document.tree == {
        "include": ["parts/b.toml"],
        "defaults": {"timeout": "1s", "on_error": "skip", "retry": {"on": ["a"], "max": 1}},
        "slo": {"end_to_end": "1s"},
    }
    assert document.locate(("defaults", "retry", "max")) == (
        str(tmp_path / "parts/b.toml"),
        ("defaults", "retry", "max"),
    )
    assert document.folder(("slo", "end_to_end")) == tmp_path / "parts"
    assert document.folder(("defaults", "timeout")) == tmp_path


def test_relative_paths_start_at_the_file_they_are_written_in(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='sage = 1\ninclude = ["parts/b.toml"]\n[models.m]\nbackend = "null"\nsource = "./m"\n',
        parts__b="""
[params]
docs = { type = "path", default = "docs" }
[models.n]
backend = "null"
source = "./n"
[steps.a]
use = "t.files"
with = { path = "data" }
[steps.b]
use = "t.files"
with = { path = "${params.docs}/x" }
""",
    )
    found = load(main, sample_operators.host())
    assert found.steps["a"].options == {"path": "parts/data"}
    assert found.steps["b"].options == {"path": "${params.docs}/x"}
    assert found.params["docs"].default == "parts/docs"
    assert [model.source for model in found.models.values()] == [f"{tmp_path}/parts/n", f"{tmp_path}/m"]


def test_a_file_included_by_two_others_counts_once(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='include = ["a.toml", "b.toml", "a.toml"]\n',
        a='include = ["c.toml"]\n',
        b='include = ["c.toml"]\n',
        c="[steps.x]\n",
    )
    assert read(main).tree["steps"] == {"x": {}}


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    with pytest.raises(InvalidWorkflow, match=r"main.toml:1:12: the files include each other: main.toml → main.toml"):
        read(write(tmp_path, main='include = ["main.toml"]\n'))


def test_a_place_in_a_profile_is_the_profiles(tmp_path: Path) -> None:
    text = 'sage = 1\n[steps.a]\nuse = "t.upper"\nin.text = { value = "x" }\n[profile.p.steps.a]\ntimeout = "soon"\n'
    path = write(tmp_path, main=text)
    load(path, sample_operators.host())
    with pytest.raises(InvalidWorkflow, match=r"main.toml:6:11: 'soon' is not a duration"):
        load(path, sample_operators.host(), profile="p")


def test_paths_are_shown_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, main="x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidWorkflow, match=r"^main\.toml:1:2: not valid TOML"):
        read(path)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    with pytest.raises(InvalidWorkflow) as error:
        read(path)
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_no_workflow_at_all(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * 4_000_001)
    with pytest.raises(UsageError, match=r"huge\.toml has 4,000,001 bytes; a workflow file has at most 4,000,000"):
        read(path)
    path.write_bytes(b"\x7fELF\x00\xff")
    with pytest.raises(InvalidWorkflow, match=r"huge\.toml:1:1: not UTF-8: byte 0xff"):
        read(path)
    path.write_text("x = " + "9" * 5000)
    with pytest.raises(InvalidWorkflow, match=r"1:1: not valid TOML: Exceeds the limit \(4300 digits\)"):
        read(path)


_TREES = [tomllib.loads(file.read_text()) for file in sorted(VALID.glob("*.toml")) if "include" not in file.read_text()]
_ODD = st.one_of(
    st.sampled_from(
        ["", "files", "files.path", "params.x", "${params.x}", "${", "a b", "join", "1%", "10m", "?", "a.b?", "\0"]
    ),
    st.sampled_from(
        [0, -1, 3, 2.5, float("inf"), float("nan"), True, [], {}, [{}], [["a"]], {"value": 1}, {"value": []}]
    ),
    st.dates(),
    st.text(max_size=5),
)
_KEYS = (
    "use in with rows after when batch needs retry timeout cache on_error max_errors partition per matrix repeat on "
    "how left right foreach until feed max steps params models outputs triggers cron http slo defaults profile "
    "include checkpoint sage type default choices min secret backend source schedule timezone path text item"
)
_SPARE = sorted(_KEYS.split(" "))


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every place that can be overwritten, as (container, key)."""
    if isinstance(tree, (dict, list)):
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        return [(tree, key) for key in keys] + [spot for key in keys for spot in spots(tree[key])]
    return []


@given(
    st.sampled_from(_TREES),
    st.lists(st.tuples(st.integers(0, 10**6), _ODD, st.sampled_from(["", *_SPARE])), min_size=1, max_size=3),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_document_makes_the_checker_itself_fail(tree: dict[str, Any], edits: list[tuple[int, Any, str]]) -> None:
    """A valid document with anything put anywhere is accepted or refused; and the refusal names keys."""
    tree = copy.deepcopy(tree)
    for where, value, key in edits:
        places = spots(tree)
        if places:
            container, old = places[where % len(places)]
            # A copy, or an odd value could come to hold itself.
            container[key if key and isinstance(container, dict) else old] = copy.deepcopy(value)
    try:
        graph = check_tree(tree, sample_operators.host(), base=VALID)
    except InvalidWorkflow as error:
        refusal = error.diagnostics
    else:
        assert decode(encode(graph)) == graph
        return
    assert refusal
    assert all(": " in text for text in refusal)
