from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from sage_core import Host, operator
from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow import check, graph
from sage_core.kernel.dataflow.stream import Stream, Value, Workflow
from tests.unit.kernel.dataflow import ask_docs as operators
from tests.unit.kernel.dataflow.ask_docs import Build, Plugin, shout


@pytest.fixture
def host() -> Host:
    return Host({"test": Plugin()})


ASK_DOCS = """
sage = 1
name = "ask-docs"

[params]
docs = { type = "path" }
question = { type = "string" }

[models.minilm]
backend = "onnx"

[steps.files]
use = "rag.files"
with = { path = "${params.docs}" }

[steps.parse]
use = "rag.parse"
in = { file = "files" }

[steps.chunk]
use = "rag.chunk"
in = { text = "parse.text" }

[steps.embed]
use = "llm.embed"
in = { text = "chunk.text" }
with = { model = "minilm" }

[steps.index]
use = "rag.index"
in = { vector = "embed.vector", text = "chunk.text", path = "files.path", start = "chunk.start", end = "chunk.end" }

[steps.ask]
use = "llm.embed"
in = { text = "params.question" }
with = { model = "minilm" }

[steps.retrieve]
use = "rag.retrieve"
in = { vector = "ask.vector", query = "params.question", index = "index" }

[outputs]
sources = "retrieve.passages"

[slo]
end_to_end = "2s"
"""


def ask_docs(base: Path, index: Any = "rag.index") -> Workflow:
    wf = Workflow("ask-docs", base=base)
    docs, question = wf.param("docs", "path"), wf.param("question", "string")
    minilm = wf.model("minilm", backend="onnx")
    found = wf.source("rag.files", path=docs)
    chunks = found.map("rag.parse", file=found).flat_map("rag.chunk")
    vectors = chunks.map("llm.embed", model=minilm)
    built = vectors.reduce(
        index,
        name="index",
        vector=vectors.vector,
        text=chunks.text,
        path=found.path,
        start=chunks["start"],
        end=chunks.end,
    )
    ask = wf.source("llm.embed", name="ask", text=question, model=minilm)
    wf.output("sources", ask.map("rag.retrieve", query=question, index=built).passages)
    wf.set(slo={"end_to_end": "2s"})
    return wf


def from_toml(text: str, folder: Path, host: Host) -> graph.Graph:
    file = folder / "workflow.toml"
    file.write_text(text)
    return check.load(file, host)


@pytest.mark.parametrize("index", ["rag.index", Build], ids=["by name", "by class"])
def test_ask_docs_written_both_ways_is_one_graph(host: Host, tmp_path: Path, index: Any) -> None:
    written = from_toml(ASK_DOCS, tmp_path, host)
    built = ask_docs(tmp_path, index).graph(host)
    assert list(built.steps) == ["files", "parse", "chunk", "embed", "index", "ask", "retrieve"]
    assert graph.encode(built) == graph.encode(written)


def test_the_document_is_what_the_file_parses_to(host: Host, tmp_path: Path) -> None:
    import tomllib

    assert ask_docs(tmp_path).to_dict(host) == tomllib.loads(ASK_DOCS)


CHAIN = """
sage = 1
name = "chain"

[params]
docs = { type = "path" }
limit = { type = "int", default = 3 }

[steps.files]
use = "rag.files"
with = { path = "${params.docs}" }

[steps.parse]
use = "rag.parse"
in = { file = "files" }
on_error = "skip"
max_errors = "1%"

[steps.short]
use = "t.short"
in = { text = "parse.text" }
with = { limit = "${params.limit}" }

[steps.length]
use = "t.length"
in = { text = "parse.title" }
rows = "short"
when = "files.path != 'a'"

[steps.mean]
use = "t.mean"
in = { length = "length" }

[steps.each]
use = "t.mean"
in = { length = "length" }
per = "files"

[steps.write]
use = "t.write"
in = { text = ["short.text", "parse.text"] }
after = ["mean"]

[outputs]
mean = "mean"
each = "each.mean"
"""


def test_filters_settings_merges_and_groups_are_the_same_both_ways(host: Host, tmp_path: Path) -> None:
    wf = Workflow("chain", base=tmp_path)
    docs, limit = wf.param("docs", "path"), wf.param("limit", "int", default=3)
    found = wf.source("rag.files", path=docs)
    pages = found.map("rag.parse", file=found).set(on_error="skip", max_errors="1%")
    kept = pages.filter("t.short", limit=limit)
    lengths = kept.map("t.length", text=pages.title).set(when="files.path != 'a'")
    means = lengths.reduce("t.mean")
    each = lengths.reduce("t.mean", name="each", per=found)
    kept.sink("t.write", text=[kept.text, pages.text]).set(after=[means])
    wf.output("mean", means)
    wf.output("each", each.mean)
    assert graph.encode(wf.graph(host)) == graph.encode(from_toml(CHAIN, tmp_path, host))


@pytest.mark.parametrize("reads", [True, False])
def test_what_follows_a_filter_takes_its_rows_even_when_it_reads_none_of_its_columns(host: Host, reads: bool) -> None:
    wf = Workflow("rows")
    pages = wf.source("rag.parse", file=Value({"path": "a", "digest": "b"}))
    kept = pages.filter("t.short")
    kept.map("t.length", text=kept.text if reads else pages.text)
    step = wf.to_dict(host)["steps"]["length"]
    assert step.get("rows") == (None if reads else "short")
    assert wf.graph(host).steps["length"].rows == (() if reads else ("short",))


JOIN = """
sage = 1
name = "join"

[steps.left]
use = "rag.files"
with = { path = "a" }

[steps.right]
use = "rag.files"
with = { path = "b" }

[steps.both]
use = "join"
in = { left = "left", right = "right" }
on = { "left.digest" = "right.digest", "left.path" = "right.path" }
how = "left"

[steps.length]
use = "t.length"
in = { text = "left.path" }
rows = "both"

[outputs]
length = "length.length"
"""


@pytest.mark.parametrize("pairs", [False, True])
def test_a_join_is_the_same_both_ways(host: Host, tmp_path: Path, pairs: bool) -> None:
    wf = Workflow("join", base=tmp_path)
    left, right = wf.source("rag.files", name="left", path="a"), wf.source("rag.files", name="right", path="b")
    on: Any = [(left.digest, right.digest), (left.path, right.path)] if pairs else ["digest", "path"]
    lengths = left.join(right, on=on, how="left", name="both").map("t.length", text=left.path)
    wf.output("length", lengths.length)
    assert graph.encode(wf.graph(host)) == graph.encode(from_toml(JOIN, tmp_path, host))


def test_a_function_that_no_plugin_offers_becomes_a_local_operator(host: Host) -> None:
    wf = Workflow("local")
    wf.source(shout, text=wf.param("text", "string"))
    name = f"local.{operators.__name__}.shout"
    step = wf.graph(host).steps["shout"]
    assert (step.use, step.signature.operator, list(step.columns)) == (name, "t.local", ["loud"])
    assert host.operators[name] is shout
    assert host.operators.origin(name) == "local"
    assert wf.to_dict(host)["steps"]["shout"]["use"] == name


def unmarked(text: str) -> str:
    return text


@pytest.mark.parametrize("method", ["source", "map", "filter", "flat_map", "reduce", "sink"])
def test_lambdas_and_nested_functions_are_refused_where_they_are_written(method: str) -> None:
    @operator("t.nested")
    def nested(text: str) -> str:
        return text

    wf = Workflow("refused")
    start: Any = wf if method == "source" else wf.source("rag.files", path="a")
    take = getattr(start, method)
    with pytest.raises(UsageError, match=rf"\.{method}\(\) cannot take a lambda: it has no types.*\n.*module-level"):
        take(lambda text: text)
    with pytest.raises(UsageError, match=r"nested'.*no worker could import it.*\n.*top level"):
        take(nested)
    with pytest.raises(UsageError, match=r"'unmarked': it is not marked.*\n.*@operator"):
        take(unmarked)
    with pytest.raises(UsageError, match=r"takes an operator's name or a function"):
        take(functools.partial(shout, "a"))


def streams() -> tuple[Workflow, Stream]:
    wf = Workflow("wrong")
    return wf, wf.source("rag.parse", file=Value({"path": "a", "digest": "b"}))


def test_a_method_that_does_not_suit_the_operator_names_the_one_that_does(host: Host) -> None:
    wf, pages = streams()
    pages.map("rag.chunk")
    with pytest.raises(UsageError, match=r"'rag.chunk' is not for \.map\(\)\n.*\.flat_map\('rag.chunk', …\)"):
        wf.to_dict(host)


def test_an_unknown_keyword_lists_ports_and_options(host: Host) -> None:
    wf, pages = streams()
    pages.flat_map("rag.chunk", siz=3)
    with pytest.raises(UsageError, match=r"neither a port nor an option 'siz'\. Did you mean 'size'\?\n.*ports: text;"):
        wf.to_dict(host)


def test_a_column_cannot_be_an_option(host: Host) -> None:
    wf, pages = streams()
    pages.flat_map("rag.chunk", size=pages.title)
    with pytest.raises(UsageError, match=r"'size' is an option, fixed .*, and cannot be <column parse\.title>"):
        wf.to_dict(host)


def test_a_text_that_looks_like_a_reference_must_be_said_to_be_one(host: Host) -> None:
    wf, pages = streams()
    pages.map("t.length", text="parse.title")
    with pytest.raises(UsageError, match=r"looks like a reference\n.*Value\('parse\.title'\)"):
        wf.to_dict(host)
    wf, pages = streams()
    pages.map("t.length", text=Value("parse.title"))
    assert wf.to_dict(host)["steps"]["length"]["in"] == {"text": {"value": "parse.title"}}


def test_absent_becomes_null_and_fields_are_reached_by_name(host: Host) -> None:
    wf, pages = streams()
    pages.map("t.length", text=~pages.title["first"].word)
    assert wf.to_dict(host)["steps"]["length"]["in"] == {"text": "parse.title.first.word?"}


def test_names_are_used_once_and_streams_stay_in_their_workflow() -> None:
    wf, pages = streams()
    pages.map("t.length")
    with pytest.raises(UsageError, match=r"step 'length' is defined twice in workflow 'wrong'\n.*\.map\(…, name='…'\)"):
        pages.map("t.length")
    with pytest.raises(UsageError, match="of another workflow"):
        Workflow("other").source("t.length", text=pages)
    wf.param("a", "string")
    with pytest.raises(UsageError, match="param 'a' is defined twice"):
        wf.param("a", "int")


def test_unknown_settings_and_tables_are_refused_with_the_closest() -> None:
    wf, pages = streams()
    with pytest.raises(UsageError, match=r"no setting 'retri'\. Did you mean 'retry'\?"):
        pages.set(retri=3)
    with pytest.raises(UsageError, match=r"no table 'sol'\. Did you mean 'slo'\?"):
        wf.set(sol={})
    with pytest.raises(UsageError, match="is no column"):
        wf.output("x", 3)  # type: ignore[arg-type]


def test_what_the_checker_finds_is_reported_by_step(host: Host) -> None:
    wf, pages = streams()
    pages.map("t.length", text=pages.txt)
    with pytest.raises(InvalidWorkflow) as caught:
        wf.graph(host)
    assert "length" in str(caught.value)
    assert "txt" in str(caught.value)
