"""Contract suite for plugins that observe jobs: subclass it and set ``plugin``."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec

from sage_core.common.hooks import find_hooks
from sage_core.common.records import Attempt, StepTime
from sage_core.testing.subject import subject

_DONE = Attempt(
    job=1,
    run="r1",
    workflow="w",
    session=1,
    stage="parse",
    part=0,
    steps=(StepTime(name="parse", seconds=0.5, rows_in=2, rows_out=1, failed=1),),
    fence=1,
    attempt=1,
    worker="w1",
    outcome="done",
    started_at=1_000_000_000,
    finished_at=2_000_000_000,
)


class JobObserverContract:
    """What an observer of ``sage_on_job_finished`` keeps: whatever an attempt came to, it takes it.

    SAGE logs what an observer raises, and goes on; here it fails the test.
    """

    plugin: object

    def _tell(self, attempt: Attempt) -> object:
        plugin = subject(self, "plugin")
        hook = find_hooks("plugin", plugin).get("sage_on_job_finished")
        assert hook is not None, "the plugin does not observe sage_on_job_finished"
        return hook(attempt=attempt)

    def test_it_takes_every_outcome(self) -> None:
        for outcome in get_args(get_type_hints(Attempt)["outcome"]):
            steps = _DONE.steps if outcome == "done" else ()
            error = "it broke" if outcome in ("failed", "retried") else ""
            self._tell(msgspec.structs.replace(_DONE, outcome=outcome, steps=steps, error=error))

    def test_it_takes_an_attempt_of_no_length(self) -> None:
        self._tell(msgspec.structs.replace(_DONE, finished_at=_DONE.started_at))

    def test_it_gives_nothing_back(self) -> None:
        assert self._tell(_DONE) is None, "an observer's result is ignored: return nothing"
