"""Every extension point, in two shapes.

``sage_<things>()`` returns a mapping from public name to ``"module:attribute"``, without importing the module.
``sage_on_<event>(…)`` observes: it must not block, its result is ignored. No hook is async or a first-result hook.
An implementation's argument must not have a default value: pluggy does not pass those.
"""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from sage_core.common.records import Attempt, Request, Run

#: Name of the entry-point group and of the pluggy project.
PROJECT = "sage"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def sage_operators() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Operators that workflows name in ``use``: each entry is a function or class marked with `operator`."""


@hookspec
def sage_schedulers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Classes that are an `Ordering` (jobs and requests) or a `Scheduler` (requests)."""


@hookspec
def sage_node_selectors() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Classes that are a `NodeFilter`, `NodeScorer` or `NodePicker`, for jobs on nodes and requests on engines."""


@hookspec
def sage_backends() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Classes that are a `Backend`: ways to run a model."""


@hookspec
def sage_triggers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Classes that are a `TriggerKind`: what ``[[triggers.NAME]]`` of a workflow means in time."""


@hookspec
def sage_commands() -> Mapping[str, str]:  # type: ignore[empty-body]
    """click commands that become subcommands of ``sage``; heavy imports belong inside the command."""


@hookspec
def sage_on_run_finished(run: Run) -> None:
    """A run ended, in any status; called at least once a session, after the commit."""


@hookspec
def sage_on_job_finished(attempt: Attempt) -> None:
    """An attempt at a job ended, in any way; called by the process that made it, after the commit."""


@hookspec
def sage_on_request_decided(request: Request, decision: Mapping[str, object]) -> None:
    """The control plane dispatched, shed or rejected a request; `decision` is its line of the decision log."""
