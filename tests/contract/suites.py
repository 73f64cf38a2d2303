"""How a contract suite is held against a wrong implementation: the test meant for it must fail, with its message."""

from __future__ import annotations

import pytest

from sage_core import SageError


def assert_fails(contract: type, test: str, message: str, **attributes: object) -> None:
    """Subclass the suite with what its author would set, and see one of its tests fail."""
    suite = type("Suite", (contract,), attributes)()
    with pytest.raises((AssertionError, SageError), match=message):
        getattr(suite, test)()
