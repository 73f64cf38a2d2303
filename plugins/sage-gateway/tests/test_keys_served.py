"""Keys over real HTTP: what a key may do, and that its account is right again after whatever happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, APITimeoutError, AuthenticationError, OpenAI, PermissionDeniedError, RateLimitError
from sage_gateway.keys import Key, KeyFile
from sage_gateway.testing import Running

Serve = Callable[..., Running]
HELLO: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "project" / "keys.json")


def client_of(running: Running, key: str, *, timeout: float = 20) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=timeout)


def usage(running: Running, key: Key) -> dict[str, float]:
    accounts: Any = running.gateway.accounts
    found: dict[str, float] = running.call(lambda: accounts._limits.usage(key, time.monotonic_ns()))
    return found


def test_a_key_is_needed_and_says_who_asks(keys: KeyFile, serve: Serve) -> None:
    text, _ = keys.add(tenant="search", service_class="interactive", priority=3, models=("echo", "plain*"))
    running = serve({"echo": {"backend": "fake"}, "other": {"backend": "fake"}})
    with client_of(running, "sk-sage-wrong") as wrong, pytest.raises(AuthenticationError, match="is not known"):
        wrong.models.list()
    with client_of(running, text) as client:
        assert [model.id for model in client.models.list()] == ["echo"]
        with pytest.raises((PermissionDeniedError, APIError), match="other"):
            client.chat.completions.create(model="other", messages=HELLO)
        # Only where there are no keys may a client say whom it asks for.
        client.chat.completions.create(model="echo", messages=HELLO, extra_headers={"x-sage-tenant": "ops"})
    lines = running.call(lambda: [line for lines in running.gateway.decisions.values() for line in lines])
    assert [(line.tenant, line.service_class) for line in lines] == [("search", "interactive")]


def test_each_limit_is_told_by_name_and_when_it_is_over(keys: KeyFile, serve: Serve) -> None:
    few, _ = keys.add(tenant="few", requests_per_minute=2)
    small, _ = keys.add(tenant="small", tokens_per_minute=100)
    poor, _ = keys.add(tenant="poor", budget=0.000_05)
    running = serve()
    for key, limit, said, code in (
        (few, 8, "2 requests a minute", "rate_limit_exceeded"),
        (small, 60, "100 tokens a minute", "rate_limit_exceeded"),
        (poor, 30, "may spend 5e-05", "insufficient_quota"),
    ):
        with client_of(running, key) as client:
            for _ in range(40):
                try:
                    client.chat.completions.create(model="echo", messages=HELLO, max_tokens=limit)
                except RateLimitError as error:
                    refused = error
                    break
            assert said in refused.message
            assert refused.code == code
            assert ("retry-after" in refused.response.headers) == (code == "rate_limit_exceeded")
            if code == "rate_limit_exceeded":
                assert 1 <= int(refused.response.headers["retry-after"]) <= 60
        del refused


def test_requests_in_flight_are_bounded_and_a_client_that_leaves_frees_its_place(keys: KeyFile, serve: Serve) -> None:
    text, key = keys.add(tenant="one", concurrency=1, requests_per_minute=100, tokens_per_minute=100_000, budget=10.0)
    running = serve({"echo": {"backend": "fake", "ttft": 30.0}})
    with client_of(running, text, timeout=0.3) as client, pytest.raises(APITimeoutError):
        client.chat.completions.create(model="echo", messages=HELLO, max_tokens=50)
    assert running.settled()
    # It was cancelled before its first token: it has used nothing.
    assert usage(running, key) == {"requests": 0, "tokens": 0, "in_flight": 0, "spent": 0.0}
    assert running.call(lambda: running.gateway.driver.manager.held) == 0


def test_after_a_storm_of_answers_refusals_and_departures_only_answers_are_charged(keys: KeyFile, serve: Serve) -> None:
    text, key = keys.add(
        tenant="storm", concurrency=6, requests_per_minute=10_000, tokens_per_minute=10_000_000, budget=9.0
    )
    running = serve({"echo": {"backend": "fake", "sequences": 2, "ttft": 0.02, "poison": "poison"}})
    rng = random.Random(7)

    def one(kind: str) -> int:
        with client_of(running, text, timeout=0.05 if kind == "late" else 20) as client:
            try:
                if kind == "stream":
                    with closing(client.chat.completions.create(model="echo", messages=HELLO, stream=True)) as stream:
                        return sum(1 for _ in stream) and 6
                if kind == "embed":
                    client.embeddings.create(model="echo", input=["12345678"])
                    return 2
                content = "poison" if kind == "poison" else "one two three"
                messages: Any = [{"role": "user", "content": content}]
                client.chat.completions.create(model="echo" if kind != "unknown" else "ecko", messages=messages)
                return 6
            except APIError:
                return 0

    kinds = [rng.choice(("whole", "stream", "late", "embed", "unknown")) for _ in range(80)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, kinds))
    assert running.settled()
    found = usage(running, key)
    assert found["in_flight"] == 0
    late = sum(kind == "late" for kind in kinds)
    charged = sum(answers)
    # A client that left may have left after its answer was written.
    assert charged <= found["tokens"] <= charged + 6 * late
    assert found["spent"] == pytest.approx(found["tokens"] / 1e6)
    assert sum(map(bool, answers)) <= found["requests"] <= sum(map(bool, answers)) + late


def test_tokens_are_counted_for_the_tenant(keys: KeyFile, serve: Serve) -> None:
    text, _ = keys.add(tenant="search")
    running = serve()
    with client_of(running, text) as client:
        client.chat.completions.create(model="echo", messages=HELLO)
    shown = running.call(running.gateway.metrics.text).decode()
    assert 'sage_tenant_tokens_total{direction="input",tenant="search"} 3.0' in shown
    assert 'vllm:generation_tokens_total{model_name="echo"} 3.0' in shown
