"""The example on this project's own pages: what a newcomer asks is answered by the right passage, the rest by none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sage_llm
import sage_onnx
import sage_rag

from sage_core.builtins import default_host
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings

ROOT = Path(__file__).parents[2]

#: Question → words of the passage that must come first.
ANSWERED = {
    "How does SAGE survive a crashed worker?": "SAGE survives a crashed worker because a worker owns nothing",
    "What is SAGE?": "SAGE is a workflow engine for LLM and embedding pipelines",
    "What happens when I press Ctrl-C?": "Pressing Ctrl-C once stops",
    "How do I resume a run that was killed?": "sage runs resume RUN",
    "Where does SAGE store its data?": "SAGE stores the data of a project",
    "How do I use a better model?": "To use a better model",
    "Does SAGE work offline?": "SAGE runs offline",
    "What is a fence?": "A fence is a number that only ever grows",
    "How do I write a plugin?": "Write a plugin in five minutes",
    "Why was my step run again instead of being reused?": "A step runs again when something it depends on has changed",
    "Can I use a GPU?": "you can use SAGE on a CPU only",
    "When does a run use worker processes?": "worker processes are started",
}
UNANSWERED = (
    "What is the capital of Mongolia?",
    "How do I bake sourdough bread?",
    "Who won the football world cup in 2014?",
)


@pytest.fixture
def ask(tmp_path: Path, sage_home: Path) -> Any:
    """The example up to the passages: a function from a question to what is found."""
    host = default_host({"rag": sage_rag, "llm": sage_llm, "onnx": sage_onnx})
    example = (ROOT / "examples" / "ask-docs" / "workflow.toml").read_text(encoding="utf-8")
    steps = example.partition("[steps.prompt]")[0].replace("../../docs", str(ROOT / "docs"))
    file = tmp_path / "ask.toml"
    without_answers = steps.replace('[models.smollm2]\nbackend = "local"\n', "")
    file.write_text(f'{without_answers}[outputs]\nsources = "retrieve.passages"\n', encoding="utf-8")
    project = launch.find_project(tmp_path)
    graph = launch.load(file, host, project)

    def found(question: str) -> list[dict[str, Any]]:
        run_id = launch.new_run_id()
        prepared = launch.bind(graph, {"question": question}, host, project, run_id=run_id)
        report = launch.run(
            graph,
            prepared,
            run_id,
            host=host,
            project=project,
            settings=Settings(workers=0),
            watch=lambda _: None,
        )
        assert report.status == "succeeded", report.error
        passages: list[dict[str, Any]] = report.outputs["sources"]
        return passages

    return found


# One test and not one per question: the pages are embedded once.
@pytest.mark.timeout(300)
def test_the_right_passage_comes_first_and_none_for_what_the_pages_do_not_say(ask: Any) -> None:
    wrong = {}
    for question, words in ANSWERED.items():
        passages = [" ".join(passage["text"].split()) for passage in ask(question)]
        if not passages or words not in passages[0]:
            wrong[question] = passages[:1]
    assert wrong == {}
    assert {question: found for question in UNANSWERED if (found := ask(question))} == {}
