"""Workflow files as users write them: `tests/workflows/valid` is accepted, `invalid` is refused word for word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow.check import check_tree, load
from sage_core.kernel.dataflow.graph import Binding, Graph, Ref, Repeat, Retry, decode, encode
from tests.workflows import sample_operators

FOLDER = Path(__file__).parents[3] / "workflows"
VALID = sorted((FOLDER / "valid").glob("*.toml"))
INVALID = sorted((FOLDER / "invalid").glob("*.toml"))


def graph(name: str, profile: str | None = None, **more: Any) -> Graph:
    return load(FOLDER / "valid" / f"{name}.toml", sample_operators.host(), profile=profile, **more)


def refused(tree: dict[str, Any]) -> str:
    with pytest.raises(InvalidWorkflow) as error:
        check_tree({"sage": 1, **tree}, sample_operators.host(), base=Path("/flows"))
    return "\n".join(error.value.diagnostics)


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_an_invalid_file_is_refused_word_for_word(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(InvalidWorkflow) as error:
        load(file, sample_operators.host())
    assert "\n\n".join(error.value.diagnostics) + "\n" == file.with_suffix(".expected").read_text(encoding="utf-8")


def test_there_are_enough_invalid_files_and_each_expectation_has_one() -> None:
    assert len(INVALID) >= 50
    assert {file.stem for file in (FOLDER / "invalid").glob("*.expected")} == {file.stem for file in INVALID}


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_a_valid_file_loads_without_a_warning_and_survives_storage(file: Path) -> None:
    found = load(file, sample_operators.host())
    assert found.warnings == ()
    assert found.steps
    assert decode(encode(found)) == found


def test_rows_collects_and_settings() -> None:
    found = graph("ask")
    assert {name: (step.grain, step.out) for name, step in found.steps.items()} == {
        "files": ("", "files"),
        "parse": ("files", "files"),
        "chunk": ("files", "chunk"),
        "embed": ("chunk", "chunk"),
        "index": ("chunk", ""),
        "ask": ("", ""),
        "near": ("chunk", "chunk"),
        "per_file": ("chunk", "files"),
    }
    assert found.lineage("chunk") == ("chunk", "files", "")
    assert found.steps["parse"].ports == {"file": Binding(refs=(Ref(step="files", column=""),))}
    assert found.steps["parse"].max_errors == 0.01
    assert found.steps["chunk"].options == {"size": 128, "overlap": 32}
    assert found.steps["files"].partition == 16
    assert found.steps["embed"].batch_max == 64
    assert found.steps["near"].when_refs == (Ref(step="params", column="deep"), Ref(step="chunk", column="text"))
    assert found.outputs["index"] == Binding(refs=(Ref(step="index", column="index"),))
    assert (found.name, found.base, found.end_to_end) == ("ask", str(FOLDER / "valid"), 2.0)


def test_a_join_opens_a_grain_with_two_parents_and_each_key_is_on_its_side() -> None:
    found = graph("join")
    join = found.steps["pair"].join
    assert join is not None
    assert (join.left, join.right, join.how) == ("orders", "people", "left")
    assert join.on == ((Ref(step="orders", column="customer"), Ref(step="people", column="id")),)
    assert found.grains["pair"].parents == ("orders", "people")
    assert found.steps["greet"].grain == "pair"
    assert found.steps["greet"].rows == ("pair",)
    assert found.name == "join"


def test_a_merge_keeps_its_order_and_a_literal_its_value() -> None:
    score = graph("merge").steps["score"]
    assert [ref.step for ref in score.ports["text"].refs] == ["hinted", "upper", "plain"]
    assert score.ports["weight"] == Binding(value=2)
    assert graph("merge").steps["note"].after == ("plain",)


def test_defaults_hold_where_a_step_says_nothing() -> None:
    steps = graph("filters").steps
    assert (steps["upper"].timeout, steps["upper"].on_error) == (60.0, "skip")
    assert (steps["digests"].timeout, steps["digests"].on_error) == (5.0, "fail")
    assert steps["upper"].retry == Retry(max=2, base=0.25)
    assert list(steps["short"].columns) == ["text"]


def test_a_matrix_is_rows_with_its_options_as_columns() -> None:
    found = graph("matrix")
    assert found.steps["score"].matrix == ({"mode": "fast"}, {"mode": "slow"})
    assert list(found.steps["score"].columns) == ["value", "label", "mode"]
    assert found.grains["score"].parents == ("files",)
    assert found.steps["best"].out == "files"
    assert found.models["small"].needs == {"cpu": 2, "memory": 1 << 30}
    assert found.models["large"].options == {"token": "${secret.HF_TOKEN}"}


def test_a_repeat_and_its_triggers() -> None:
    found = graph("repeat")
    refine = found.steps["refine"]
    assert refine.repeat == Repeat(max=5, until="done and len(state) > 3", feed={"state": "state"})
    assert refine.cache is False
    cron, http = found.triggers
    assert cron.settings["timezone"] == "Europe/Berlin"
    assert (cron.settings["overlap"], cron.settings["catchup"], cron.settings["params"]) == (
        "queue",
        "last",
        {"draft": "y"},
    )
    assert http.settings == {"path": "/refine", "method": "POST"}


def test_an_include_brings_steps_and_keeps_its_name() -> None:
    found = graph("profiles")
    assert list(found.steps) == ["files", "upper", "tags"]
    assert found.name == "profiles"
    # Written in parts/, so it starts there.
    assert found.steps["files"].options == {"path": "parts/docs"}


def test_a_profile_is_laid_over_the_file_and_over_what_it_includes() -> None:
    assert graph("profiles", "big").params["n"].default == 7
    assert graph("profiles", "big").steps["files"].options == {"path": "everything"}
    quick = graph("profiles", "quick")
    assert quick.steps["files"].partition == 4
    assert quick.steps["tags"].when == "upper.text != 'X'"
    with pytest.raises(
        UsageError, match=r"no profile is named 'bigg'\n  help: Did you mean 'big'\? profiles: big, quick"
    ):
        graph("profiles", "bigg")


def test_models_of_the_configuration_stand_behind_those_of_the_file() -> None:
    known = {
        "small": {"backend": "null", "source": "hf:other"},
        "spare": {"backend": "null"},
        "odd": {"backend": "gone"},
    }
    models = graph("matrix", known_models=known).models
    assert models["small"].source == ""
    assert models["spare"].backend == "null"
    assert "odd" not in models
    step = {"use": "t.embed", "in": {"text": {"value": "x"}}, "with": {"model": "odd"}}
    with pytest.raises(
        InvalidWorkflow, match=r"the model 'odd' of sage\.toml cannot be used: no backend is named 'gone'"
    ):
        check_tree({"sage": 1, "steps": {"a": step}}, sample_operators.host(), base=Path("/"), known_models=known)


def test_what_is_probably_not_meant_is_a_warning() -> None:
    tree = {
        "sage": 1,
        "params": {"unused": {"type": "int"}},
        "steps": {
            "files": {"use": "t.files", "with": {"path": "x"}},
            "lost": {"use": "t.upper", "in": {"text": "files.path"}},
            "single": {"use": "t.count", "in": {"item": "files.path"}, "per": "files"},
        },
        "outputs": {"single": "single"},
    }
    assert check_tree(tree, sample_operators.host(), base=Path("/")).warnings == (
        "step 'single' collects groups of one row: it collects the rows of 'files' per row",
        "step 'lost' is computed and nothing reads it: name it in [outputs], or remove it",
        "param 'unused' is never used",
    )


def test_a_tree_without_a_file_names_keys_instead_of_lines() -> None:
    text = refused({"steps": {"a": {"use": "t.upper", "in": {"text": "b.text"}}}})
    assert text.startswith("steps.a.in.text: no step is named 'b'\n  help: steps: a, params; for the text itself")


def test_a_null_that_the_condition_rules_out_may_feed_a_required_port() -> None:
    files = {"files": {"use": "t.files", "with": {"path": "x"}}, "parse": {"use": "t.parse", "in": {"file": "files"}}}
    upper = {"use": "t.upper", "in": {"text": "parse.title"}, "when": "parse.title != null and parse.text != ''"}
    tree = {"sage": 1, "steps": {**files, "upper": upper}}
    assert "upper" in check_tree(tree, sample_operators.host(), base=Path("/")).steps
    either = {**upper, "when": "parse.title != null or parse.text != ''"}
    assert "may be null" in refused({"steps": {**files, "upper": either}})


def test_a_leaf_that_is_only_waited_for_is_still_an_output() -> None:
    a = {"use": "t.upper", "in": {"text": {"value": "x"}}}
    found = check_tree(
        {"sage": 1, "steps": {"a": a, "b": {**a, "after": "a"}}}, sample_operators.host(), base=Path("/")
    )
    assert list(found.outputs) == ["a", "b"]


def test_steps_come_after_what_they_read_and_in_file_order_otherwise() -> None:
    a = {"use": "t.upper", "in": {"text": {"value": "x"}}}
    steps = dict.fromkeys("dca", a) | {"b": {"use": "t.upper", "in": {"text": "z.text"}}, "z": a, "e": a}
    found = check_tree({"sage": 1, "steps": steps}, sample_operators.host(), base=Path("/"))
    assert list(found.steps) == ["d", "c", "a", "z", "b", "e"]


def test_checking_a_thousand_steps_in_the_wrong_order_needs_no_recursion() -> None:
    steps: dict[str, Any] = {
        f"s{number}": {"use": "t.upper", "in": {"text": f"s{number + 1}.text"}} for number in range(1000)
    }
    steps["s1000"] = {"use": "t.upper", "in": {"text": {"value": "x"}}}
    found = check_tree({"sage": 1, "steps": steps}, sample_operators.host(), base=Path("/"))
    assert next(iter(found.steps)) == "s1000"


def test_checking_imports_neither_the_store_nor_arrow_nor_a_parser() -> None:
    """The heavy packages would cost more than the check; tree-sitter is for files that have an error."""
    script = (
        "import sys; from pathlib import Path; from tests.workflows import sample_operators\n"
        "from sage_core.kernel.dataflow.check import load\n"
        f"load(Path({str(FOLDER / 'valid' / 'filters.toml')!r}), sample_operators.host())\n"
        "print([name for name in ('sqlalchemy', 'pyarrow', 'alembic', 'numpy', 'tree_sitter') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.toml", "gone.toml: no such file"), (".", "is a folder\n  help: name the file in it")],
)
def test_what_is_no_file_is_a_wrong_command_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path / name, sample_operators.host())
    assert message in str(error.value)


def test_the_order_of_ports_and_options_as_written_is_no_part_of_a_graph() -> None:
    ports = {"region": {"value": "x"}, "total": {"value": 1.0}}
    options = {"size": 1, "overlap": 2}

    def bytes_of(turn: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
        steps = {
            "a": {"use": "t.greet", "in": turn(ports)},
            "b": {"use": "t.chunk", "in": {"text": {"value": "x"}}, "with": turn(options)},
        }
        return encode(check_tree({"sage": 1, "steps": steps}, sample_operators.host(), base=Path("/")))

    assert bytes_of(lambda table: table) == bytes_of(lambda table: dict(reversed(table.items())))
