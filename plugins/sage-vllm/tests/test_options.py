"""Options, the command line that they become, and the identity of what decides results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sage_vllm.options import (
    build_of,
    command_line,
    identity,
    read_options,
    sequences_of,
    sleeps,
    variables,
    weights_of,
)

from sage_core import ModelError, ModelSpec

from .conftest import Fake


def spec(source: str = "hf:ORG/NAME", needs: dict[str, Any] | None = None, **options: Any) -> ModelSpec:
    return ModelSpec(name="chat", backend="vllm", source=source, options=options, needs=needs or {})


def line(model: ModelSpec) -> list[str]:
    options = read_options(model)
    return command_line(model, options, build_of(model, options))


def said(model: ModelSpec) -> dict[str, str]:
    options = read_options(model)
    return variables(model, options, build_of(model, options))


def test_the_command_line_says_every_limit_that_credits_are_made_of() -> None:
    given = line(spec(sequences=7, chunk=512, context=1_000))
    for option, value in (("--max-num-seqs", "7"), ("--max-num-batched-tokens", "512"), ("--max-model-len", "1000")):
        assert given[given.index(option) + 1] == value
    assert given[:4] == ["serve", "ORG/NAME", "--served-model-name", "chat"]
    assert "--enforce-eager" in given


def test_a_gpu_takes_the_cuda_build() -> None:
    model = spec(needs={"gpu": 2})
    given = line(model)
    assert given[given.index("--tensor-parallel-size") + 1] == "2"
    assert "--gpu-memory-utilization" in given
    assert "--enforce-eager" not in given
    assert "--enable-sleep-mode" in given
    assert said(model)["VLLM_SERVER_DEV_MODE"] == "1"
    assert sequences_of(read_options(model), "cuda") == 256
    ours = line(spec(needs={"gpu": 2}, arguments=["--pipeline-parallel-size", "2", "-tp", "1"]))
    assert "--tensor-parallel-size" not in ours
    assert ours[-4:] == ["--pipeline-parallel-size", "2", "-tp", "1"]


def test_a_cpu_build_does_not_sleep_unless_it_is_told_to() -> None:
    assert not sleeps(read_options(spec()), "cpu")
    assert sleeps(read_options(spec(sleep=1)), "cpu")
    assert sleeps(read_options(spec()), "cuda")
    assert not sleeps(read_options(spec(sleep=0)), "cuda")
    # Nobody knows whether a program of the user's can.
    assert not sleeps(read_options(spec(executable="/opt/vllm")), "cuda")


@pytest.mark.parametrize(("size", "gibibytes"), [("2GiB", "2"), ("512MiB", "1"), ("3584MiB", "4"), ("4294967296", "4")])
def test_the_cache_of_a_cpu_is_counted_in_whole_gibibytes(size: str, gibibytes: str) -> None:
    assert said(spec(kv_cache=size))["VLLM_CPU_KVCACHE_SPACE"] == gibibytes


def test_only_a_source_of_the_hub_may_ask_it(fake: Fake) -> None:
    assert "HF_HUB_OFFLINE" not in said(spec())
    assert said(fake.spec())["TRANSFORMERS_OFFLINE"] == "1"
    assert said(spec(environment={"DO_NOT_TRACK": "0"}))["DO_NOT_TRACK"] == "0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence": 1}, "the options are wrong: .*'sequence'\n  help: the backend 'vllm' knows: base_url, "),
        (
            {"kinds": ["generate", "embed"]},
            "one vLLM engine cannot serve generate and embed\n  help: kinds = .*two mod",
        ),
        ({"kinds": ["tokenize"]}, "one vLLM engine cannot serve tokenize"),
        ({"kv_cache": "lots"}, "kv_cache = 'lots' is no size"),
        ({"arguments": ["--port=80"]}, "arguments hold --port=80, which SAGE says itself"),
        ({"arguments": ["--max_num_seqs", "3"]}, "arguments hold --max_num_seqs"),
        ({"sleep": 2}, "the options are wrong"),
        ({"gpu_memory": 1.5}, "the options are wrong"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_options(spec(**options))


def test_a_source_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it has no source\n  help: source = a folder with config\.json, or hf:"):
        weights_of(spec(""))
    with pytest.raises(ModelError, match=r"holds no config\.json\n  help: .*sage models add chat --backend vllm"):
        weights_of(spec(str(tmp_path)))


def test_the_identity_follows_what_decides_results_and_nothing_else(fake: Fake) -> None:
    def of(**options: Any) -> str:
        model = fake.spec(**options)
        return identity(model, read_options(model), "cpu")

    first = of()
    same: list[dict[str, Any]] = [{"sequences": 3}, {"cores": "0"}, {"start": 5.0}, {"chunk": 512}, {"figures": 1}]
    assert {of(**options) for options in same} == {first}
    other: list[dict[str, Any]] = [
        {"dtype": "float32"},
        {"context": 512},
        {"load_format": "dummy"},
        {"arguments": ["--seed", "1"]},
        {"extra": {"top_k": 1}},
        {"environment": {"VLLM_USE_X": "1"}},
    ]
    assert len({first, *(of(**options) for options in other)}) == 1 + len(other)
    (fake.weights / "model.safetensors").write_bytes(b"\1" * 64)
    assert of() != first
