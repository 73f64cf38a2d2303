"""The contract suite must fail every store that breaks the protocol in one place, on both databases."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import StoreError, UsageError
from sage_core.platform.database import Dialect
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.store import JobStore
from sage_core.testing import JobStoreContract
from tests.contract.mutants import MUTANTS
from tests.postgres import schema_url


def run_test(store_class: type[JobStore], dialect: Dialect, test: str, case: str | None, place: Path) -> None:
    """Run one test of the suite on a store, as pytest would."""
    place.mkdir()
    url = f"sqlite:///{place}/sage.db" if dialect == "sqlite" else schema_url(place)

    def make(self: JobStoreContract, place: Path) -> JobStore:
        return store_class.open(url)

    suite: Any = type("Suite", (JobStoreContract,), {"make": make})()
    method = getattr(suite, test)
    with ExitStack() as handles:
        store = handles.enter_context(suite.make(place))
        given = {"store": store, "tmp_path": place, "verb": case, "off": 3_600_000}
        wanted = inspect.signature(method).parameters
        if "other" in wanted:
            given["other"] = handles.enter_context(suite.make(place))
        method(**{name: given[name] for name in wanted})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_fails_a_mutant(name: str, dialect: Dialect, tmp_path: Path) -> None:
    store_class, test, case = MUTANTS[name]
    run_test(JobStore, dialect, test, case, tmp_path / "sound")
    with pytest.raises((AssertionError, pytest.fail.Exception, StoreError, UsageError, ValueError)) as caught:
        run_test(store_class, dialect, test, case, tmp_path / "mutant")
    # The history's key refuses a second end of one attempt; any other SQL error would prove nothing about the suite.
    assert not isinstance(caught.value, StoreError) or "refused by a constraint" in str(caught.value)
