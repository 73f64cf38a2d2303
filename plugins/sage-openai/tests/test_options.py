"""What ``[models.NAME]`` may say about a server, and what of it decides results."""

from __future__ import annotations

from typing import Any

import pytest
from sage_openai.options import identity, read_options, served_name

from sage_core import ModelError, ModelSpec


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "it has no base_url\n  help: write base_url"),
        ({"base_url": "ftp://host"}, "base_url 'ftp://host' is no http address"),
        ({"base_url": "http://user:word@host/v1"}, "base_url holds a password\n  help: write api_key"),
        ({"base_url": "http://host/v1", "kinds": ["tokenize"]}, "OpenAI's HTTP cannot tokenize"),
        ({"base_url": "http://host/v1", "sequences": 0}, "the options are wrong: Expected 'int' >= 1"),
        ({"base_url": "http://host/v1", "baseurl": ""}, "unknown field 'baseurl'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_options(ModelSpec(name="m", backend="openai", options=options))
    assert problem in str(caught.value)


def digest(url: str, name: str = "fake", **options: Any) -> str:
    spec = ModelSpec(name=name, backend="openai", options={"base_url": url, **options})
    return identity(spec, read_options(spec))


def test_the_key_and_the_limits_do_not_decide_results_and_the_rest_does() -> None:
    first = digest("http://a/v1", api_key="1")
    assert first == digest("http://a/v1/", api_key="2", sequences=4)
    others = [digest("http://b/v1"), digest("http://a/v1", "other"), digest("http://a/v1", extra={"top_k": 1})]
    assert len({first, *others}) == 4


def test_the_server_may_call_the_model_otherwise() -> None:
    options = {"base_url": "http://a/v1"}
    named = ModelSpec(name="mine", backend="openai", options={**options, "model": "theirs"}, source="hub")
    assert served_name(named, read_options(named)) == "theirs"
    sourced = ModelSpec(name="mine", backend="openai", options=options, source="hub")
    assert served_name(sourced, read_options(sourced)) == "hub"
