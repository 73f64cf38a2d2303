"""How a contract suite finds what it tests: the class attribute that its subclass sets."""

from __future__ import annotations

import inspect
from typing import Any

from sage_core.common.policies import create


def subject(suite: object, attribute: str) -> Any:
    """Return ``suite.attribute`` as it was written: a function set on a class is not turned into its method."""
    try:
        found = inspect.getattr_static(type(suite), attribute)
    except AttributeError:
        name = type(suite).__name__
        raise AssertionError(f"{name} must set `{attribute}`, for example: {attribute} = MyClass") from None
    if isinstance(found, staticmethod):
        return found.__func__
    if inspect.isfunction(found) and next(iter(inspect.signature(found).parameters), "") == "self":
        return getattr(suite, attribute)
    return found


def made(suite: object, *, seed: int = 7) -> object:
    """Return a new instance of what the suite's ``make`` names: a class, or a function that makes one."""
    make = subject(suite, "make")
    return create(make, seed=seed) if isinstance(make, type) else make()
