"""One ONNX Runtime session with its tokenizer: texts in, the model's raw output out, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import onnxruntime  # type: ignore[import-untyped]  # ships neither stubs nor py.typed
from tokenizers import Encoding

from sage_core import ModelError

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]
    Integers = numpy.typing.NDArray[numpy.int64]

from sage_onnx.tokens import load_tokenizer
from sage_onnx.weights import Weights

#: Padded tokens per call of the runtime for each of its threads. Texts of 32 tokens and more gain nothing from a
#: batch: past what the caches hold, a token costs a tenth more, and so does padding.
BATCH_TOKENS = 128
#: What a call of the runtime costs beside its tokens, in tokens: 4 ms of 0.33 ms each for MiniLM-L6 on two cores.
CALL_TOKENS = 12


class Session:
    """A loaded model. Not for concurrent use: the engine calls it from one thread."""

    def __init__(self, name: str, weights: Weights, threads: int) -> None:
        self._name = name
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        self._budget = BATCH_TOKENS * max(2, settings.intra_op_num_threads)
        # Waiting threads would otherwise burn the cores that worker processes need.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        try:
            self._runtime = onnxruntime.InferenceSession(
                str(weights.model), settings, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = load_tokenizer(weights.tokenizer)
            self._spans = load_tokenizer(weights.tokenizer)
        except Exception as error:
            raise ModelError(name, f"{weights.model} cannot be loaded: {error}", "is the file complete?") from error
        self._tokenizer.enable_truncation(weights.settings.max_tokens)
        self._invariant = weights.settings.batch_invariant
        self._inputs = {put.name for put in self._runtime.get_inputs()}
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise ModelError(name, f"{weights.model} wants inputs that texts do not give: {', '.join(sorted(unknown))}")
        padding = self._tokenizer.token_to_id("[PAD]")
        self._padding: int = self._tokenizer.token_to_id("<pad>") or 0 if padding is None else padding

    @property
    def width(self) -> int:
        """Size of the output's last axis; 0 when the graph leaves it open."""
        last = self._runtime.get_outputs()[0].shape[-1]
        return last if isinstance(last, int) else 0

    def run(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], Floats, Integers]]:
        """Yield (places in `inputs`, first output, attention mask) for batches of inputs of like length."""
        encodings = self._tokenizer.encode_batch_fast(list(inputs))
        lengths = [_length(encoding) for encoding in encodings]
        for places in pack(lengths, 0 if not self._invariant else self._budget):
            feeds = self._feeds([encodings[place] for place in places])
            try:
                output = self._runtime.run(None, {name: feeds[name] for name in self._inputs})[0]
            except Exception as error:
                raise ModelError(
                    self._name,
                    f"it failed on inputs of {feeds['input_ids'].shape[1]} tokens: {error}",
                    f"if it reads fewer tokens at a time, set max_tokens = N in [models.{self._name}]",
                ) from error
            yield places, numpy.asarray(output, dtype=numpy.float32), feeds["attention_mask"]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Character spans of each text's tokens."""
        return [list(found.offsets) for found in self._spans.encode_batch(list(texts), add_special_tokens=False)]

    def _feeds(self, encodings: Sequence[Encoding]) -> dict[str, Integers]:
        shape = (len(encodings), max(_length(encoding) for encoding in encodings))
        ids: Any = numpy.full(shape, self._padding, dtype=numpy.int64)
        mask: Any = numpy.zeros(shape, dtype=numpy.int64)
        types: Any = numpy.zeros(shape, dtype=numpy.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length] = encoding.ids
            mask[row, : _length(encoding)] = 1
            types[row, :length] = encoding.type_ids
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _length(encoding: Encoding) -> int:
    """How many tokens the model reads: a text of none, where nothing marks its ends, is read as one of padding."""
    return max(1, len(encoding.ids))


def pack(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut places, longest first, into the batches that cost least: `CALL_TOKENS` each, and every padded token.

    A batch holds at most `budget` padded tokens, or one place.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    #: Least cost of the first so many places, and where the last batch of that begins.
    costs, begins = [0], [0]
    for end in range(1, len(order) + 1):
        least, begin = costs[end - 1] + CALL_TOKENS + lengths[order[end - 1]], end - 1
        for start in range(end - 2, -1, -1):
            padded = lengths[order[start]] * (end - start)
            if padded > budget:
                # Further back the rows are longer, and more.
                break
            # Of equal costs the fewer calls.
            if costs[start] + CALL_TOKENS + padded <= least:
                least, begin = costs[start] + CALL_TOKENS + padded, start
        costs.append(least)
        begins.append(begin)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    yield from reversed(batches)
