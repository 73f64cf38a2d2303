from __future__ import annotations

import pytest
from openai import NotFoundError, OpenAI


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]


def test_one_model(client: OpenAI) -> None:
    assert client.models.retrieve("echo").owned_by == "sage"


def test_an_unknown_model_is_named_with_the_candidates(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve("ecko")
    assert caught.value.code == "model_not_found"
    assert caught.value.body == {
        "message": "The model 'ecko' does not exist. Did you mean 'echo'? Known: echo.",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
