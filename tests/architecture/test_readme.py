"""README.md and every page: links lead somewhere, commands parse, files exist, and the shown workflow is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import sage_llm
import sage_onnx
import sage_rag

from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import make_cli, run
from sage_core.kernel.dataflow import check

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fenced(page: Path, info: str) -> list[str]:
    """Contents of the fenced blocks of one kind."""
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in blocks if kind == info]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that renderers make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands(page: Path) -> list[str]:
    """Lines of shell blocks and of blocks without a language that call `sage`, and calls in backticks."""
    lines = [line for block in (*fenced(page, "sh"), *fenced(page, "")) for line in block.splitlines()]
    lines += re.findall(r"`(sage [^`\n]+)`", prose(page))
    bare = [
        re.sub(r"\s+#.*|\s{3,}.*", "", line).strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in lines
    ]
    # `sage = 1` is a line of TOML, COMMAND stands for any.
    return [line for line in bare if re.match(r"sage (?!=|COMMAND)", line)]


def plugin_commands() -> set[str]:
    """Commands that distributions of this project add, read from their sources: not every environment has them all."""
    sources = [*ROOT.glob("plugins/*/sage_*/__init__.py"), *ROOT.glob("benchmarks/sage_*/__init__.py")]
    bodies = [file.read_text(encoding="utf-8").partition("def sage_commands(")[2] for file in sources]
    returned = [re.search(r"return \{(.*?)\}", body, re.DOTALL) for body in bodies]
    return {name for found in returned if found for name in re.findall(r'"([\w-]+)": ', found[1])}


def refusal(line: str) -> str:
    """Why click does not take a command line; empty when it does. ``a|b`` stands for several, ``…`` for more."""
    context = click.Context(make_cli(App(default_host({}))), info_name="sage")
    words = shlex.split(line.replace("…", ""))[1:]
    if words and words[0] in plugin_commands():
        return ""
    try:
        while words and isinstance(context.command, click.Group) and not words[0].startswith("-"):
            _, command, rest = context.command.resolve_command(context, words[:1])
            assert command is not None
            context, words = click.Context(command, parent=context, info_name=words[0]), [*rest, *words[1:]]
        known = {opt for param in context.command.get_params(context) for opt in (*param.opts, *param.secondary_opts)}
        wrong = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
        arguments = [param for param in context.command.params if isinstance(param, click.Argument)]
        if not arguments and words and not words[0].startswith("-"):
            wrong.append(words[0])
    except click.UsageError as error:
        return error.message
    return f"no such option: {', '.join(wrong)}" if wrong else ""


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_those_of_sage(page: Path) -> None:
    refused = {line: why for line in commands(page) if (why := refusal(line))}
    assert refused == {}


def test_the_readme_shows_commands() -> None:
    assert len(commands(README)) >= 4
    assert refusal("sage run FILE --worker 2") == "no such option: --worker"
    assert refusal("sage rnu FILE").startswith("No command is named 'rnu'")


def test_files_that_the_readmes_commands_name_exist() -> None:
    words = [word for block in fenced(README, "sh") for line in block.splitlines() for word in shlex.split(line, True)]
    files = [word for word in words if "/" in word and not word.startswith(".venv/")]
    assert "./quickstart.sh" in files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_readmes_workflow_is_valid(tmp_path: Path) -> None:
    (block,) = fenced(README, "toml")
    file = tmp_path / "find.toml"
    file.write_text(block, encoding="utf-8")
    graph = check.load(file, default_host({"rag": sage_rag, "llm": sage_llm, "onnx": sage_onnx}))
    assert graph.warnings == ()
    assert list(graph.outputs) == ["passages"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_of_the_tree_that_a_page_names_exist(page: Path) -> None:
    pattern = r"`((?:sage_core|docs|tests|examples|plugins|benchmarks|migrations|changelog\.d)/[\w./-]*)`(?!:\n\n)"
    missing = [path for path in re.findall(pattern, prose(page)) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "line", ["check examples/ask-docs/workflow.toml", "graph examples/ask-docs/workflow.toml", "runs list", "schema"]
)
def test_cheap_commands_do_what_they_say(line: str, sage_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert any(f"sage {line.split()[0]}" in command for page in PAGES for command in commands(page))
    assert run(line.split()) == 0


def test_the_tree_names_what_is_there() -> None:
    (tree,) = fenced(ROOT / "docs" / "start-here.md", "tree")
    above: list[str] = []
    for line in tree.splitlines():
        entry = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [entry]
        assert (ROOT / "".join(above)).exists(), "".join(above)
    listed = {line.split("/")[0].split()[0] for line in tree.splitlines() if not line.startswith(" ")}
    assert {"sage_core", "plugins", "migrations", "docs", "tests", "tox.ini"} <= listed


def test_the_reading_order_knows_the_files_and_their_sizes() -> None:
    text = (ROOT / "docs" / "start-here.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/.]+)` \| (\d+) \|", text, re.MULTILINE)
    assert 6 <= len(rows) <= 9
    for file, lines in rows:
        counted = len((ROOT / file).read_text(encoding="utf-8").splitlines())
        assert abs(counted - int(lines)) <= max(20, counted * 0.15), f"{file} has {counted} lines"


def test_every_file_that_start_here_names_exists() -> None:
    text = prose(ROOT / "docs" / "start-here.md")
    files = re.findall(r"`((?:sage_core|tests)/[\w/.]+\.py)`", text)
    assert len(files) > 15
    assert [file for file in files if not (ROOT / file).is_file()] == []
