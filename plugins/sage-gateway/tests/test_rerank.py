from __future__ import annotations

from typing import Any

import httpx
import pytest
from sage_gateway.testing import Running

ASK = {"model": "echo", "query": "red fence", "documents": ["a cat", "a red fence", {"text": "a fence"}]}


def post(running: Running, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    return httpx.post(running.url + path, json={**ASK, **fields}, timeout=20)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_the_most_relevant_comes_first(running: Running, path: str) -> None:
    answer = post(running, path).json()
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert "document" not in answer["results"][0]


def test_the_best_with_their_texts(running: Running) -> None:
    answer = post(running, top_n=1, return_documents=True).json()
    assert [result["document"] for result in answer["results"]] == [{"text": "a red fence"}]


@pytest.mark.parametrize("fields", [{"documents": []}, {"documents": "a"}, {"query": 1}, {"top_n": 0}])
def test_what_cannot_be_ranked(running: Running, fields: dict[str, Any]) -> None:
    answer = post(running, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in (*fields, None)
