"""What a vLLM server says of itself at ``/metrics``: its limits once, and figures for people to look at."""

from __future__ import annotations

import re

import msgspec

_LINE = re.compile(r"^(vllm:[a-z_]+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
#: Metric → the figure that it is shown as.
_SHOWN = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:num_preemptions_total": "preemptions",
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "prefix_hits",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine can hold, as it says itself; 0 where it does not."""

    kv_tokens: int = 0
    #: Tokens of one block of the cache: a request holds whole ones.
    block: int = 0

    def usable(self, sequences: int, context: int) -> int:
        """Tokens that can be promised: as if the last block of every request held one token only."""
        if not self.kv_tokens:
            return 0
        return max(min(context, self.kv_tokens), self.kv_tokens - sequences * max(0, self.block - 1))


def read_limits(text: str) -> Limits:
    """Read ``vllm:cache_config_info``."""
    for name, labels, _ in _lines(text):
        if name == "vllm:cache_config_info":
            block = _whole(labels.get("block_size"))
            tokens = _whole(labels.get("kv_cache_size_tokens")) or _whole(labels.get("num_gpu_blocks")) * block
            return Limits(kv_tokens=tokens, block=block)
    return Limits()


def read_figures(text: str) -> dict[str, float]:
    """The figures of a moment, by the names they are shown under."""
    figures: dict[str, float] = {}
    for name, _, value in _lines(text):
        if name in _SHOWN:
            # A server with several engines has a line for each.
            figures[_SHOWN[name]] = figures.get(_SHOWN[name], 0.0) + value
    return figures


def _lines(text: str) -> list[tuple[str, dict[str, str], float]]:
    found = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            try:
                found.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
            except ValueError:
                continue
    return found


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
