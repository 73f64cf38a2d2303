"""docs/workflows.md: every block is checked by the real checker, every complete one without models is run."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sage_llm
import sage_onnx

from sage_core.builtins import default_host
from sage_core.common.host import Host
from sage_core.kernel.dataflow import check, draft, layout, params
from sage_core.kernel.dataflow.graph import encode
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.report import Report

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text(encoding="utf-8")
PLUGIN = "ticket_operators_of_the_docs"


class Block(NamedTuple):
    section: str
    info: str
    text: str


def blocks() -> list[Block]:
    """Fenced blocks with the heading they stand under and the words after the opening fence."""
    found: list[Block] = []
    section = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\S[^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        section = match[1] or section
        if match[2]:
            found.append(Block(section, match[2], match[3]))
    return found


COMPLETE = [block for block in blocks() if block.info in ("toml", "toml side-by-side")]

#: What each example comes to, by section and place in it; None where it needs a model or a value.
LONGEST = ["printer", "invoice", "please", "password?"]
EXPECTED: dict[tuple[str, int], dict[str, Any] | None] = {
    ("A first workflow", 0): {"texts": ["PRINTER ON FIRE", "MY INVOICE IS WRONG", "PLEASE CALL ME", "PASSWORD?"]},
    ("Grains: how often a step runs", 0): {
        "tags": [
            *("1:printer", "1:on", "1:fire", "2:my", "2:invoice", "2:is", "2:wrong"),
            *("1:please", "1:call", "1:me", "9:password?"),
        ]
    },
    ("Presence: `when`, filters, `rows`", 0): {
        "texts": ["PRINTER ON FIRE", "MY INVOICE IS WRONG", "PLEASE CALL ME", "PASSWORD?"],
        "greetings": ["1:hello", "1:hello", "9:hello"],
    },
    ("Presence: `when`, filters, `rows`", 1): {"tag": "1:HELLO"},
    ("Collecting, and `per`", 0): {"each": LONGEST, "all": "password?"},
    ("Joins", 0): {
        "lines": ["north: printer on fire", "south: my invoice is wrong", "north: please call me", "unknown: password?"]
    },
    ("`matrix`", 0): {"sizes": [3, 11], "texts": ["the", "the printer"]},
    ("`repeat`", 0): {"text": "help"},
    ("Errors, retries, time limits", 0): {
        "texts": ["PRINTER ON FIRE", "MY INVOICE IS WRONG", "PLEASE CALL ME", "PASSWORD?"]
    },
    ("Reuse, partitions, batches, resources", 0): {"word": "MY INVOICE IS WRONG"},
    ("`[models]`", 0): None,
    ("`include` and profiles", 0): {"texts": ["printer on fire", "please call me", "password?"]},
    ("Triggers", 0): None,
    ("The same in Python", 0): {"texts": ["PRINTER ON FIRE", "MY INVOICE IS WRONG", "PLEASE CALL ME", "PASSWORD?"]},
}


def keyed() -> list[tuple[tuple[str, int], Block]]:
    found: list[tuple[tuple[str, int], Block]] = []
    for block in COMPLETE:
        place = sum(key[0] == block.section for key, _ in found)
        found.append(((block.section, place), block))
    return found


def write(folder: Path, name: str, columns: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def folder(tmp_path: Path, sage_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's operators, its included file and its data."""
    (operators,) = (block for block in blocks() if block.info == "python operators")
    (tmp_path / f"{PLUGIN}.py").write_text(operators.text, encoding="utf-8")
    (part,) = (block for block in blocks() if block.info == "toml part")
    (tmp_path / "steps.toml").write_text(part.text, encoding="utf-8")
    texts = ["printer on fire", "my invoice is wrong", "please call me", "password?"]
    tickets = [
        (number, customer, text) for number, (customer, text) in enumerate(zip((1, 2, 1, 9), texts, strict=True))
    ]
    write(tmp_path, "tickets.csv", ["id", "customer", "text"], tickets)
    write(tmp_path, "customers.csv", ["id", "region"], [(1, "north"), (2, "south")])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop(PLUGIN, None)


@pytest.fixture
def host(folder: Path) -> Host:
    return default_host({"tickets": importlib.import_module(PLUGIN), "llm": sage_llm, "onnx": sage_onnx})


def run(folder: Path, text: str, host: Host, profile: str | None = None) -> Report:
    file = folder / "workflow.toml"
    file.write_text(text, encoding="utf-8")
    project = launch.find_project(folder)
    graph = launch.load(file, host, project, profile=profile)
    run_id = launch.new_run_id()
    prepared = launch.bind(graph, {}, host, project, run_id=run_id)
    settings = Settings(workers=0)
    return launch.run(graph, prepared, run_id, host=host, project=project, settings=settings, watch=lambda _: None)


def test_the_operators_of_the_page_keep_their_contracts(host: Host) -> None:
    assert [str(problem) for problem in host.check()] == []


def test_every_complete_example_is_expected() -> None:
    assert [key for key, _ in keyed()] == list(EXPECTED)


@pytest.mark.parametrize(("key", "block"), keyed(), ids=lambda each: each[0] if isinstance(each, tuple) else "")
def test_an_example_is_valid_without_a_warning_and_gives_what_it_says(
    key: tuple[str, int], block: Block, folder: Path, host: Host
) -> None:
    if EXPECTED[key] is None:
        file = folder / "workflow.toml"
        file.write_text(block.text, encoding="utf-8")
        assert check.load(file, host).warnings == ()
        return
    profile = "strict" if "[profile.strict" in block.text else None
    report = run(folder, block.text, host, profile)
    assert report.status == "succeeded", report.error
    assert report.outputs == EXPECTED[key]


def test_python_builds_the_same_document_and_graph(folder: Path, host: Host) -> None:
    toml, python = (block.text for block in blocks() if block.info.endswith("side-by-side"))
    file = folder / "tickets.toml"
    file.write_text(toml, encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(compile(python, "workflows.md", "exec"), namespace)
    namespace["workflow"]._base = folder
    assert encode(namespace["workflow"].graph(host)) == encode(check.load(file, host))


def test_the_page_names_every_key() -> None:
    keys = {*layout.TOP, *layout.STEP, *layout.JOIN, *params.KEYS, *params.COLUMNS, *draft._LATER}
    missing = [key for key in sorted(keys) if not re.search(rf"\b{key}\b", PAGE)]
    assert missing == []


@pytest.mark.parametrize("key", ["key_by", "foreach"])
def test_what_the_page_says_is_refused_is_refused(key: str, folder: Path, host: Host) -> None:
    text = f'sage = 1\n[steps.load]\nuse = "tickets.load"\nwith = {{ path = "x" }}\n{key} = "a"\n'
    with pytest.raises(Exception, match=f"'{key}' is not supported yet"):
        run(folder, text, host)
