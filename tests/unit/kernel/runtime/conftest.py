from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    """Workflows over the test operators, in a home of the test's own."""
    return Flows(tmp_path, {"flows": flow_operators})
