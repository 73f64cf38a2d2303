"""A transaction's own promises; the contract suite holds what its writes mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction


def test_all_of_its_writes_are_kept_or_none(tmp_path: Path) -> None:
    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        new = NewRun(id="r", workflow="flow")
        with pytest.raises(StoreError, match="refused by a constraint"), store.transaction() as tx:  # noqa: PT012 - the second of two writes is refused
            for each in (new, new):
                tx.insert_run(each)
        assert store.runs() == []
        with store.transaction() as tx:
            assert isinstance(tx, Transaction)
            tx.insert_run(NewRun(id="r", workflow="flow"))
        with pytest.raises(StoreError, match="a write outside a transaction"):
            tx.insert_run(NewRun(id="s", workflow="flow"))
        assert [run.id for run in store.runs()] == ["r"]
