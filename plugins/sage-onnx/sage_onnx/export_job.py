"""Runs inside the isolated environment: turns a model folder into ONNX and makes its weights smaller.

Called as ``python export_job.py JOB.json``; imports nothing of SAGE, since that environment has none.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> None:
    """Fill ``job["target"]`` and, where weights are made smaller, keep the full model in ``job["reference"]``."""
    source, target, reference = job["source"], Path(job["target"]), Path(job["reference"])
    folder = Path(source) if Path(source).is_dir() else fetch(source)
    found = [path for path in (folder / "model.onnx", folder / "onnx" / "model.onnx") if path.is_file()]
    full = reference if job["quantize"] else target
    if found:
        full.mkdir(parents=True, exist_ok=True)
        for path in found[0].parent.glob("model.onnx*"):
            shutil.copyfile(path, full / path.name)
    else:
        export(folder, full)
    if job["quantize"]:
        quantise(full / "model.onnx", target / "model.onnx", job["quantize"])
    for name in ("tokenizer.json", "config.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        origin = folder / name if (folder / name).is_file() else full / name
        if origin.is_file() and origin.parent != target:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target / name)


def fetch(source: str) -> Path:
    """Bring a hub model's files here, without weights in formats that are not read."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a folder needs no hub

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/config.json", "model.onnx*", "onnx/model.onnx*"]
    return Path(snapshot_download(source, allow_patterns=wanted))


def export(folder: Path, target: Path) -> None:
    """Trace the PyTorch model; a sequence classifier keeps its scores, anything else its token vectors."""
    # Ten seconds of imports that an ONNX source does without; the package is in the isolated environment only.
    from optimum.exporters.onnx import main_export  # noqa: PLC0415

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classifier = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    task = "text-classification" if classifier else "feature-extraction"
    main_export(str(folder), output=target, task=task, library_name="transformers")


def quantise(source: Path, target: Path, kind: str) -> None:
    """Write the model with 8-bit weights."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "int8-dynamic":
        from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]  # noqa: PLC0415

        # One scale for a whole matrix would cost 4 % of cosine instead of 1 %.
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return
    import onnx  # noqa: PLC0415 - each way imports its own tools
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # type: ignore[import-untyped]  # noqa: PLC0415
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    # Blocks of 32 share a scale, and activations are scaled per row: a row's result does not depend on its batch.
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=8)
    quantiser = MatMulNBitsQuantizer(onnx.load(str(source)), algo_config=config)
    # It reports every node it looks at.
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    quantiser.process()
    quantiser.model.save_model_to_file(str(target))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
