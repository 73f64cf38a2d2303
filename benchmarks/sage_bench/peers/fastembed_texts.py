"""fastembed on the same ONNX file: ``fastembed_texts.py FOLDER THREADS``; speaks as `sage_bench.embedders` does."""

from __future__ import annotations

import json
import sys
import time

from fastembed import TextEmbedding  # type: ignore[import-not-found]
from fastembed.common.model_description import ModelSource, PoolingType  # type: ignore[import-not-found]


def main(folder: str, threads: str) -> None:
    """Embed one order after another, with the batch size that the order names."""
    TextEmbedding.add_custom_model(
        model="bench/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="http://localhost/unused"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("bench/minilm", specific_model_path=folder, threads=int(threads) or None)
    say({})
    while line := sys.stdin.readline():
        order = json.loads(line)
        began, cpu = time.perf_counter(), time.process_time()
        vectors = list(model.embed(order["texts"], batch_size=order["batch"]))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        say({"seconds": seconds, "cpu": cpu, "vector": [float(value) for value in vectors[0]]})


def say(answer: dict[str, object]) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
