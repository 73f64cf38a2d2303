"""``/metrics``: Prometheus reads it, its labels are bounded, and no scrape changes a decision."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from contextlib import aclosing

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sage_gateway.metrics import MOST, OTHER, Capped, Metrics
from sage_gateway.testing import Running

from sage_core import Caller, Request, SageError

SLOW = {"echo": {"backend": "fake", "sequences": 1, "ttft": 0.05}, "broken": {"backend": "fake", "broken": "no disk"}}


def scraped(running: Running) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values, by the names of the labels → its value."""
    with urllib.request.urlopen(f"{running.url}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


async def asked(running: Running, name: str, model: str = "echo", *, tenant: str = "search") -> str:
    gateway = running.gateway
    messages = ({"role": "user", "content": "one two three"},)
    request = Request(id=name, kind="generate", model=model, messages=messages, caller=Caller(tenant=tenant, ttft=1))
    async with aclosing(gateway.driver.generate(request, gateway.models[model])) as stream:
        return "".join([token.text async for token in stream])


def test_requests_engines_and_queues_are_counted(serve: Callable[..., Running]) -> None:
    running = serve(SLOW)
    for number in range(3):
        assert running.wait(asked(running, f"r{number}")) == "one two three"
    found = scraped(running)
    assert found["vllm:request_success_total", "echo"] == 3
    assert found["vllm:time_to_first_token_seconds_count", "echo"] == 3
    assert found["vllm:time_to_first_token_seconds_sum", "echo"] >= 3 * 0.05
    assert found["gen_ai_server_time_to_first_token_seconds_count", "echo"] == 3
    assert found["vllm:e2e_request_latency_seconds_count", "echo"] == 3
    decided = {key[2:]: value for key, value in found.items() if key[:2] == ("sage_decisions_total", "echo")}
    assert decided == {("done", "fifo", "standard"): 3}
    assert found["sage_ttft_missed_total", "echo", "standard"] == 3
    assert found["sage_cold_start_seconds_count", "echo"] == 1
    assert found["sage_engines", "echo", "up"] == 1
    assert found["vllm:num_requests_waiting", "echo"] == 0
    assert found["vllm:num_requests_running", "echo"] == 0


def test_what_cannot_be_served_is_counted_by_its_reason(serve: Callable[..., Running]) -> None:
    running = serve(SLOW)
    for number in range(2):
        with pytest.raises(SageError, match="no disk"):
            running.wait(asked(running, f"b{number}", "broken"))
    found = scraped(running)
    assert found["sage_engines_lost_total", "broken"] >= 1
    ended = {key[2]: value for key, value in found.items() if key[:2] == ("sage_decisions_total", "broken")}
    assert sum(ended.values()) == 2


def test_tokens_are_counted_by_tenant_up_to_a_bound() -> None:
    metrics = Metrics()
    for number in range(3 * MOST):
        metrics.used(f"tenant{number}", f"model{number}", 5, 7)
    samples = [s for family in text_string_to_metric_families(metrics.text().decode()) for s in family.samples]
    tokens = {tuple(s.labels.values()): s.value for s in samples if s.name == "sage_tenant_tokens_total"}
    assert len(tokens) == 2 * (MOST + 1)
    assert tokens["input", OTHER] == 5 * 2 * MOST
    assert tokens["output", "tenant0"] == 7


def test_a_capped_name_stays_what_it_was() -> None:
    capped = Capped(2)
    assert [capped(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]
