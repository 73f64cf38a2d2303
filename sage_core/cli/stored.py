"""The store that commands look at: the one of the current folder's project, if anything ran there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sage_core.common.errors import UsageError

if TYPE_CHECKING:
    from sage_core.kernel.runtime.launch import Project

#: Said where no run is found: runs are kept where their workflow is, which need not be here.
ELSEWHERE = "runs are kept in the project of their workflow: change to its folder, or start one: sage run WORKFLOW"


def project_here(wanted: str = "") -> Project:
    """The current folder's project; one that never ran anything is refused where something of it is wanted.

    Args:
        wanted: what it is asked for, such as ``run has the id '2611'``; empty where nothing is also an answer.
    """
    from sage_core.kernel.runtime.launch import find_project  # noqa: PLC0415 - `--help` needs none of it

    project = find_project(Path.cwd())
    if wanted and not has_store(project):
        raise UsageError(f"No {wanted}: there are no runs in {place_of(project)}", ELSEWHERE)
    return project


def project_of(run_id: str) -> Project:
    """The current folder's project, which must have runs."""
    return project_here(f"run has the id {run_id!r}")


def has_store(project: Project) -> bool:
    """Whether there is anything to look at."""
    # Opening the default store makes it, and with it a project of whatever folder the user happens to look from.
    return bool(project.config.store.url) or project.paths.database.exists()


def place_of(project: Project) -> str:
    """Where the project's runs are kept, for people."""
    from sage_core.platform.database import mask  # noqa: PLC0415 - `--help` needs none of it

    return mask(project.config.store.url) if project.config.store.url else str(project.paths.project)
