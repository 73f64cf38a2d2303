"""Limits and figures from the text at /metrics."""

from __future__ import annotations

import pytest
from sage_vllm.figures import Limits, read_figures, read_limits

SAID = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",cache_dtype="auto",kv_cache_size_tokens="46592",num_gpu_blocks="364"} 1.0
vllm:num_requests_running{engine="0",model_name="a \\"quoted\\" name"} 2.0
vllm:num_requests_running{engine="1",model_name="b"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="b"} 0.25
vllm:num_requests_waiting{engine="0"} nonsense
python_info{implementation="CPython"} 1.0
"""


def test_limits_are_read_once() -> None:
    assert read_limits(SAID) == Limits(kv_tokens=46_592, block=128)
    blocks = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0'
    assert read_limits(blocks) == Limits(kv_tokens=1_600, block=16)
    nothing = 'vllm:cache_config_info{block_size="None",num_gpu_blocks="None"} 1.0'
    assert read_limits(nothing) == Limits()
    assert read_limits("") == Limits()


def test_figures_of_several_engines_are_added_and_broken_lines_left_out() -> None:
    assert read_figures(SAID) == {"running": 5.0, "kv_usage": 0.25}


@pytest.mark.parametrize(
    ("limits", "sequences", "context", "usable"),
    [
        (Limits(kv_tokens=46_592, block=128), 32, 2_048, 46_592 - 32 * 127),
        (Limits(kv_tokens=4_096, block=16), 1, 4_096, 4_096),
        # One request of the longest kind always has room.
        (Limits(kv_tokens=4_096, block=128), 256, 2_048, 2_048),
        (Limits(kv_tokens=1_000, block=128), 256, 2_048, 1_000),
        (Limits(), 32, 2_048, 0),
    ],
)
def test_what_is_promised_holds_whatever_the_blocks_waste(
    limits: Limits, sequences: int, context: int, usable: int
) -> None:
    assert limits.usable(sequences, context) == usable
