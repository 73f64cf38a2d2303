"""Runs in vLLM's environment: turns a GGUF file into what transformers saves, or fetches a model from the hub."""

from __future__ import annotations

import sys
from pathlib import Path


def convert(file: Path, target: str) -> None:
    """Undo the quantisation of a GGUF file: vLLM reads safetensors."""
    import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - of the other environment
    from transformers import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - as above
        AutoModelForCausalLM,
        AutoTokenizer,
    )

    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # Leftovers of the quantisation, which saving would take for the real thing.
    for leftover in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, leftover):
            delattr(model, leftover)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def fetch(name: str, target: str) -> None:
    """Copy a model from the hub."""
    from huggingface_hub import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - as above
        snapshot_download,
    )

    snapshot_download(name, local_dir=target)


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(Path(sys.argv[2]), sys.argv[3])
    else:
        fetch(sys.argv[2], sys.argv[3])
