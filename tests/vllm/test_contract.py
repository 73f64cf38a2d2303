"""vLLM against the contracts of every backend: engines that adopt one server, as starting it takes half a minute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from sage_vllm.backend import VllmBackend

from sage_core import Backend, Embeds, ModelSpec
from sage_core.testing import BackendContract, EmbedderContract, ForwarderContract, GeneratorContract

from .conftest import SMALL, Server


class TestVllmWeights(BackendContract):
    """What is known of a model before any server runs."""

    changed_options = {"dtype": "float32", "context": 1_024, "arguments": ["--seed", "3"], "build": "cuda"}
    missing = ModelSpec(name="nowhere", backend="vllm", source="/nowhere/at/all")

    @pytest.fixture(autouse=True)
    def _weights(self, smollm2: Path) -> None:
        self.spec = ModelSpec(name="chat", backend="vllm", source=str(smollm2), options=dict(SMALL))

    def make_backend(self) -> Backend:
        return VllmBackend()

    # These open an engine each, of servers that must start: `test_engines.py` does that once for many questions.
    test_opens_and_closes_twice = None  # type: ignore[assignment]
    test_says_what_it_can_do_and_hold = None  # type: ignore[assignment]


class _Adopting(BackendContract):
    server: Server
    seconds = 120.0

    @pytest.fixture(autouse=True)
    def _server(self, chat: Server) -> None:
        self.server = chat
        self.spec = chat.spec

    def make_backend(self) -> Backend:
        return VllmBackend()


class TestVllmGenerates(_Adopting, GeneratorContract):
    """Chats that SAGE writes."""


class TestVllmForwards(_Adopting, ForwarderContract):
    """Chats that clients write."""

    def test_a_closed_answer_leaves_the_server_idle(self) -> None:
        """vLLM counts no cancelled answers, but those that run: 1,500 tokens would keep one for a minute."""
        self.test_closing_it_cancels_the_work()
        end = time.monotonic() + 15
        while self.server.metric("vllm:num_requests_running"):
            assert time.monotonic() < end, "vLLM goes on with what nobody reads"
            time.sleep(0.1)


class TestVllmEmbeds(EmbedderContract):
    """Vectors by the pooling runner."""

    seconds = 120.0

    @pytest.fixture(autouse=True)
    def _server(self, embedder: Server) -> None:
        self.spec = embedder.spec

    def make_backend(self) -> Backend:
        return VllmBackend()

    def test_a_vector_says_what_a_text_is_about(self) -> None:
        texts = ("a cat sleeps on the sofa", "a kitten naps on the couch", "revenue grew by nine percent")

        async def use(engine: Embeds) -> Any:
            return await engine.embed(texts)

        near, far = (self.within(use) @ self.within(use)[0])[1:]
        assert near > 0.5 > far + 0.2
        assert isinstance(near, numpy.float32)
