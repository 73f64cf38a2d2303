"""What embedding would cost without SAGE: ``python -m sage_bench.bare TEXTS.json THREADS BUDGET`` embeds every text.

The same ONNX file, tokenizer, truncation, pooling and threads as the backend `onnx`, in batches that no live system
could do better at: all texts are there at once, are sorted by length, and cut into batches of at most BUDGET padded
tokens. Prints one JSON object of seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def main(texts_file: str, threads: str, budget: str) -> None:
    """Embed every text of a JSON list."""
    # Imported here, so that what importing costs is in the figures.
    import numpy  # noqa: PLC0415 - see above
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - see above
    from sage_onnx.tokens import load_tokenizer  # noqa: PLC0415 - see above
    from sage_onnx.weights import find_weights  # noqa: PLC0415 - see above

    from sage_core import ModelSpec  # noqa: PLC0415 - see above

    texts: list[str] = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    weights = find_weights(ModelSpec(name="minilm", backend="onnx"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    # As in the backend: threads that wait in a loop would also be counted as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(weights.model), options, providers=["CPUExecutionProvider"])
    names = {put.name for put in session.get_inputs()}
    tokenizer = load_tokenizer(weights.tokenizer)
    tokenizer.enable_truncation(weights.settings.max_tokens)
    loaded = time.perf_counter()
    encodings = tokenizer.encode_batch_fast(texts)
    order = sorted(range(len(texts)), key=lambda place: -len(encodings[place].ids))
    tokenized = time.perf_counter()
    dimension = session.get_outputs()[0].shape[-1]
    vectors = numpy.zeros((len(texts), dimension), dtype=numpy.float32)
    batches, padded = 0, 0
    at = 0
    while at < len(order):
        width = len(encodings[order[at]].ids)
        chosen = order[at : at + max(1, int(budget) // width)]
        at += len(chosen)
        ids = numpy.zeros((len(chosen), width), dtype=numpy.int64)
        mask = numpy.zeros_like(ids)
        for row, place in enumerate(chosen):
            length = len(encodings[place].ids)
            ids[row, :length] = encodings[place].ids
            mask[row, :length] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        output = session.run(None, {name: feeds[name] for name in names})[0]
        pooled = (output * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        pooled /= numpy.linalg.norm(pooled, axis=1, keepdims=True)
        vectors[chosen] = pooled
        batches, padded = batches + 1, padded + ids.size
    ended = time.perf_counter()
    result = {
        "load": loaded - STARTED,
        "tokenize": tokenized - loaded,
        "run": ended - tokenized,
        "batches": batches,
        "padded_tokens": padded,
        "checksum": round(float(numpy.abs(vectors).sum()), 3),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
