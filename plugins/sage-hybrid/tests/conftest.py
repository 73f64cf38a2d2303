"""What the tests share: calls served over modelled engines by the policy with some options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core.testing import Answer, BatchingModel, Call, Simulation


@pytest.fixture
def serve() -> Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]:
    """Request and engine of each dispatch in order, and the answers."""

    def run(
        calls: Sequence[Call], engines: Sequence[BatchingModel], **options: bool | float
    ) -> tuple[list[tuple[str, str]], dict[str, Answer]]:
        simulation = Simulation(lambda name: HybridSchedulingPolicy(**options), engines)  # type: ignore[arg-type]
        simulation.submit(calls)
        simulation.run()
        assert (simulation.manager.held, simulation.manager.faults) == (0, ())
        return simulation.dispatched, simulation.answers

    return run
