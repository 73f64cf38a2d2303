"""``/sage/v1``: what a gateway tells of itself, and what may be changed while it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sage_gateway.testing import Running

Serve = Callable[..., Running]
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "my secret words"}]}


def get(running: Running, path: str) -> Any:
    answer = httpx.get(f"{running.url}/sage/v1/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestRequests:
    def test_a_request_can_be_explained_by_the_id_in_its_answer(self, running: Running) -> None:
        said = httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, headers={"x-sage-slo-ttft-ms": "900"})
        told = get(running, f"requests/{said.headers['x-sage-request-id']}")
        assert told["state"] == "ended"
        (line,) = told["decisions"]
        assert line["outcome"] == "done"
        assert line["engine"] == said.headers["x-sage-engine"]
        assert line["candidates"][0]["engine"] == line["engine"]
        assert line["deadline"] == 900_000_000
        assert "secret" not in str(told)

    def test_one_that_nobody_knows(self, running: Running) -> None:
        answer = httpx.get(f"{running.url}/sage/v1/requests/req-1")
        assert answer.status_code == 404


class TestPools:
    def test_engines_are_counted_by_state(self, running: Running) -> None:
        assert get(running, "pools")["data"][0]["engines"] == {"starting": 0, "up": 0, "draining": 0}
        httpx.post(f"{running.url}/v1/chat/completions", json=CHAT)
        (pool,) = get(running, "pools")["data"]
        assert (pool["model"], pool["waiting"], pool["engines"]["up"]) == ("echo", 0, 1)


class TestPolicy:
    def test_it_is_switched_by_name(self, running: Running) -> None:
        assert get(running, "policy")["policy"] == "fifo"
        answer = httpx.put(f"{running.url}/sage/v1/policy", json={"policy": "priority"})
        assert answer.json()["policy"] == "priority"
        httpx.post(f"{running.url}/v1/chat/completions", json=CHAT)
        (line,) = [lines[-1] for lines in running.call(lambda: list(running.gateway.decisions.values()))]
        assert line.policy == "priority"

    def test_one_model_may_have_another(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake"}, "other": {"backend": "fake"}})
        httpx.put(f"{running.url}/sage/v1/policy", json={"policy": "priority", "model": "echo"})
        assert get(running, "policy")["models"] == {"echo": "priority", "other": "fifo"}
        assert {row["model"]: row["policy"] for row in get(running, "pools")["data"]} == {
            "echo": "priority",
            "other": "fifo",
        }

    def test_an_unknown_name_changes_nothing(self, running: Running) -> None:
        answer = httpx.put(f"{running.url}/sage/v1/policy", json={"policy": "priorty"})
        assert answer.status_code == 400
        assert "Did you mean 'priority'?" in answer.json()["error"]["message"]
        assert get(running, "policy")["policy"] == "fifo"

    def test_an_option_that_a_policy_does_not_have_changes_nothing(self, running: Running) -> None:
        answer = httpx.put(f"{running.url}/sage/v1/policy", json={"policy": "fifo?depth=1"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "policy")
        assert get(running, "policy")["policy"] == "fifo"

    def test_what_waits_is_served_under_the_next_policy(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake", "sequences": 1, "ttft": 0.2}})
        import threading

        answers: list[int] = []

        def post() -> None:
            answers.append(httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=20).status_code)

        threads = [threading.Thread(target=post) for _ in range(5)]
        for thread in threads:
            thread.start()
        for name in ("priority", "fifo", "priority"):
            httpx.put(f"{running.url}/sage/v1/policy", json={"policy": name})
        for thread in threads:
            thread.join(20)
        assert answers == [200] * 5
        assert running.settled()


class TestRoutes:
    @pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/models"), ("POST", "/sage/v1/requests/x")])
    def test_a_wrong_method(self, running: Running, method: str, path: str) -> None:
        answer = httpx.request(method, running.url + path)
        assert answer.status_code == 405
        assert answer.json()["error"]["message"] == f"{path} takes GET"

    def test_no_such_route(self, running: Running) -> None:
        answer = httpx.get(f"{running.url}/v1/nothing")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
