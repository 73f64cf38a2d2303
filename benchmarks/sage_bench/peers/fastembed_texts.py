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
        began = time.perf_counter()
        vectors = list(model.embed(order["texts"], batch_size=order["batch"]))
        say({"seconds": time.perf_counter() - began, "vector": [float(value) for value in vectors[0]]})


def say(answer: dict[str, object]) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
