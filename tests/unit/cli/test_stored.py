"""Tests of sage_core.cli.stored: which store commands look at."""

from __future__ import annotations

import pytest

from sage_core.cli.stored import ELSEWHERE, has_store, place_of, project_here, project_of
from sage_core.common.errors import UsageError
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_runs import a_run


def test_a_project_without_runs_is_refused_where_one_is_wanted(cli: Cli) -> None:
    project = project_here()
    assert not has_store(project)
    with pytest.raises(UsageError) as refused:
        project_of("2611")
    place = cli.home / "project"
    assert str(refused.value) == f"No run has the id '2611': there are no runs in {place}\n  help: {ELSEWHERE}"
    a_run(cli)
    assert has_store(project_of("2611"))


def test_a_store_is_named_without_its_password(cli: Cli) -> None:
    (cli.cwd / "sage.toml").write_text('[store]\nurl = "postgresql://me:secret@host/db"\n')
    project = project_here()
    assert has_store(project)
    assert "secret" not in place_of(project)
    assert "host/db" in place_of(project)
