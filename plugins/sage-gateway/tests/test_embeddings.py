from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy
import pytest
from openai import BadRequestError, OpenAI
from sage_gateway.testing import Running


def test_floats_and_base64_are_the_same_vectors(client: OpenAI, running: Running) -> None:
    # The client asks for base64 by itself and shows floats.
    said = client.embeddings.create(model="echo", input=["a b", "c"])
    assert [each.index for each in said.data] == [0, 1]
    raw = client.post("/embeddings", cast_to=object, body={"model": "echo", "input": ["a b", "c"]})
    floats = numpy.array([each["embedding"] for each in raw["data"]], "float32")  # type: ignore[index]
    assert (floats == numpy.array([each.embedding for each in said.data], "float32")).all()
    assert floats.shape == (2, 16)


def test_base64_is_little_endian_float32(client: OpenAI) -> None:
    body = {"model": "echo", "input": "a b", "encoding_format": "base64"}
    raw = client.post("/embeddings", cast_to=object, body=body)
    vector = numpy.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4")  # type: ignore[index]
    assert vector.shape == (16,)
    assert abs(float((vector**2).sum()) - 1) < 1e-5


def test_texts_of_several_requests_share_batches_and_equal_ones_are_computed_once(
    client: OpenAI, running: Running
) -> None:
    client.embeddings.create(model="echo", input=["same", "same", "other"])
    engine = running.engine("echo")
    assert sorted(engine.batches[-1]) == ["other", "same"]


@pytest.mark.parametrize("fields", [{"input": [1, 2, 3]}, {"input": [[1, 2], [3]]}, {"input": "a", "dimensions": 8}])
def test_token_ids_and_dimensions_go_to_the_engine_as_they_are(running: Running, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "echo", **fields}).encode()
    httpx.post(f"{running.url}/v1/embeddings", content=body)
    assert running.engine("echo").bodies == [body]
    assert running.settled()
    ((line,),) = running.call(lambda: list(running.gateway.decisions.values()))
    assert (line.kind, line.rows) == ("embed", 1)


@pytest.mark.parametrize("input", ["", [], ["a", ""], [[]]])
def test_nothing_to_embed_is_an_error(client: OpenAI, input: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.post("/embeddings", cast_to=object, body={"model": "echo", "input": input})
    assert caught.value.param == "input"


def test_too_many_texts(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="at most 2048"):
        client.post("/embeddings", cast_to=object, body={"model": "echo", "input": ["a"] * 2049})
