"""Tests of sage_core.kernel.runtime.drive: how a session of a run ends, whoever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_core import Needs
from sage_core.common.config import Config, WorkerConfig
from sage_core.common.errors import Interrupted, SageError, UsageError
from sage_core.common.records import JobState
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.inspect import iso
from sage_core.kernel.runtime.progress import Event, Planned, Progress, Stopping
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.scheduler.ledger import fits, needs_text
from sage_core.kernel.scheduler.node import this_node
from sage_core.platform.records import NewJob, NewRun
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.drive_operators import Ends

ROOT = Path(__file__).parents[4]


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def driven(tmp_path: Path, ends: Ends) -> Flows:
    """Runs in this process, with a plugin that hears of their ends."""
    return Flows(tmp_path, {"driven": drive_operators, "ends": ends})


@pytest.fixture
def manned(tmp_path: Path) -> Flows:
    """Runs with worker processes, which import plugins by name."""
    return Flows(tmp_path, {"driven": drive_operators})


def tree(use: str, *, n: int = 4, partition: int = 2, **options: Any) -> dict[str, Any]:
    return {
        "name": "driven",
        "steps": {
            "numbers": {"use": "d.numbers", "with": {"n": n}},
            "act": {"use": use, "in": {"text": "numbers.text"}, "with": options, "partition": partition},
        },
        "outputs": {"all": "act"},
    }


def watched(flows: Flows, workflow: dict[str, Any], watch: Callable[[Event], None], *, workers: int = 0) -> Report:
    graph, run_id = flows.graph(workflow), launch.new_run_id()
    prepared = launch.bind(graph, {}, flows.host, flows.project, run_id=run_id)
    settings = Settings(workers=workers)
    return launch.run(graph, prepared, run_id, host=flows.host, project=flows.project, settings=settings, watch=watch)


def only_run(flows: Flows) -> str:
    with flows.open_store() as store:
        (run,) = store.runs()
    return run.id


def status(flows: Flows, run_id: str) -> str:
    with flows.open_store() as store:
        assert not store.live_workers(), "every process has said goodbye"
        return store.run(run_id).status


# ------------------------------------------------------------ ends


def test_plugins_hear_of_each_session_once_with_the_stores_times(driven: Flows, ends: Ends) -> None:
    first = driven.run(tree("d.plain"))
    again = driven.resume(first.run_id)
    failed = driven.run(tree("d.fail"))

    assert [(run.id, run.session, run.status) for run in ends.runs] == [
        (first.run_id, 1, "succeeded"),
        (first.run_id, 2, "succeeded"),
        (failed.run_id, 1, "failed"),
    ]
    with driven.open_store() as store:
        stored = store.run(first.run_id)
    assert {run.created_at for run in ends.runs[:2]} == {iso(stored.created_at)}
    assert ends.runs[1].finished_at == iso(stored.finished_at or 0)
    assert again.outputs == first.outputs == {"all": ["0", "1", "2", "3"]}
    assert status(driven, first.run_id) == "succeeded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_synchronous_operator_cancels_the_run_and_keeps_what_is_done(
    driven: Flows, ends: Ends, number: int
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    seen: list[Event] = []
    flag = str(driven.home / "flag")
    with pytest.raises(Interrupted) as caught:
        watched(driven, tree("d.signal", flag=flag, number=int(number)), seen.append)

    (run_id,) = caught.value.args
    assert status(driven, run_id) == "cancelled"
    assert [event for event in seen if isinstance(event, Stopping)] == [Stopping(run_id=run_id, at_once=False)]
    assert [(run.status, run.error) for run in ends.runs] == [("cancelled", "interrupted")]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    resumed = driven.resume(run_id)
    assert resumed.status == "succeeded"
    assert resumed.outputs == {"all": ["0", "1", "2", "3"]}
    with driven.open_store() as store:
        assert {attempt.outcome for attempt in store.attempts(run_id)} <= {"done", "given_back"}


def test_a_signal_while_an_async_operator_waits_gives_its_job_back(driven: Flows) -> None:
    def once_running(event: Event) -> None:
        if isinstance(event, Progress) and event.running:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        watched(driven, tree("d.hang", flag=str(driven.home / "flag")), once_running)

    (run_id,) = caught.value.args
    with driven.open_store() as store:
        assert "given_back" in {attempt.outcome for attempt in store.attempts(run_id)}
        assert not [job for job in store.jobs(run_id) if job.state == "running"]
    assert driven.resume(run_id).status == "succeeded"


SECOND = """
import sys
from pathlib import Path
from sage_core.kernel.runtime import launch
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.test_drive import tree
flows = Flows(Path(sys.argv[1]), {"driven": drive_operators})
flows.run(tree(sys.argv[2], **eval(sys.argv[3])))
"""


def in_another_process(home: Path, use: str, **options: Any) -> int:
    command = [sys.executable, "-c", SECOND, str(home), use, repr(options)]
    return subprocess.run(command, cwd=ROOT, timeout=30, check=False).returncode


def test_a_second_signal_ends_the_process_at_once_and_the_run_is_cancelled(manned: Flows) -> None:
    flag = str(manned.home / "flag")
    code = in_another_process(manned.home, "d.signal", flag=flag, number=int(signal.SIGINT), times=2)

    assert code == Interrupted.exit_code
    run_id = only_run(manned)
    assert status(manned, run_id) == "cancelled"
    assert manned.resume(run_id).outputs == {"all": ["0", "1", "2", "3"]}


def test_a_run_whose_driver_was_killed_is_resumed_and_nothing_done_is_done_again(manned: Flows) -> None:
    assert in_another_process(manned.home, "d.die", partition=1, flag=str(manned.home / "flag")) == -signal.SIGKILL

    run_id = only_run(manned)
    with manned.open_store() as store:
        assert store.run(run_id).status == "running"
    resumed = manned.resume(run_id)
    parts = resumed.steps["act"].partitions
    assert (resumed.status, resumed.outputs) == ("succeeded", {"all": ["0", "1", "2", "3"]})
    assert (parts.total, parts.reused, parts.run) == (4, 2, 2)


def test_a_driven_run_cannot_be_resumed_by_somebody_else(driven: Flows) -> None:
    refused: list[str] = []

    def resume_elsewhere(event: Event) -> None:
        if isinstance(event, Progress) and event.running and not refused:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
            signal.raise_signal(signal.SIGINT)

    def attempt() -> None:
        try:
            driven.resume(only_run(driven))
        except UsageError as error:
            refused.append(str(error))

    with pytest.raises(Interrupted) as caught:
        watched(driven, tree("d.hang", flag=str(driven.home / "flag")), resume_elsewhere)

    (run_id,) = caught.value.args
    assert refused == [
        f"Run {run_id} is being driven by process {os.getpid()} on {os.uname().nodename}.\n"
        f"  help: wait for it, or stop it: sage runs cancel {run_id}"
    ]


def test_a_run_cancelled_from_elsewhere_stops_and_is_reported_as_cancelled(driven: Flows, ends: Ends) -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, Progress) and event.running:
            with driven.open_store() as store:
                store.cancel_run(only_run(driven))

    report = watched(driven, tree("d.hang", flag=str(driven.home / "flag")), cancel)

    assert (report.status, report.outputs) == ("cancelled", {})
    assert report.error == "it was cancelled from elsewhere"
    assert [run.status for run in ends.runs] == ["cancelled"]
    assert status(driven, report.run_id) == "cancelled"
    assert driven.resume(report.run_id).status == "succeeded"


def test_a_run_that_cannot_be_driven_after_a_resume_ends_as_failed(driven: Flows, tmp_path: Path) -> None:
    done = driven.run(tree("d.plain"))
    with driven.open_store() as store, store.transaction() as tx:
        tx.forget_results([job.result_key for job in store.jobs(done.run_id) if job.result_key])
    without = Flows(tmp_path, {})
    report = without.resume(done.run_id)
    assert report.status == "failed"
    assert "d.numbers" in report.error
    assert status(driven, done.run_id) == "failed"


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(driven: Flows) -> None:
    drawn: list[Event] = []

    def draw(event: Event) -> None:
        drawn.append(event)
        if len(drawn) == 2:
            signal.raise_signal(signal.SIGINT)
        elif len(drawn) == 1:
            raise OSError("no terminal")

    with pytest.raises(Interrupted):
        watched(driven, tree("d.hang", flag=str(driven.home / "flag")), draw)
    assert len(drawn) == 3, "the second look, and the notice of the signal it raised"


def test_a_run_is_driven_from_a_thread_too_where_no_signal_can_be_taken(driven: Flows) -> None:
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(driven.run(tree("d.plain"))))
    thread.start()
    thread.join()
    assert [report.status for report in reports] == ["succeeded"]


# ------------------------------------------------------------ workers


def test_a_killed_worker_is_replaced_and_its_job_run_again(manned: Flows) -> None:
    seen: list[Event] = []
    workflow = tree("d.die", partition=1, flag=str(manned.home / "flag"))
    report = watched(manned, workflow, seen.append, workers=1)

    assert (report.status, report.outputs) == ("succeeded", {"all": ["0", "1", "2", "3"]})
    with manned.open_store() as store:
        (lost,) = [attempt for attempt in store.attempts(report.run_id) if attempt.outcome == "lost"]
    assert "was killed by SIGKILL, as the system does when memory runs out" in lost.error
    (plan,) = [event for event in seen if isinstance(event, Planned)]
    assert (plan.workers, plan.steps["act"].jobs) == (1, 4)
    assert status(manned, report.run_id) == "succeeded"


def test_a_job_that_kills_each_of_its_workers_fails_and_names_the_log(manned: Flows) -> None:
    report = manned.run(tree("d.die", partition=1, flag=""), workers=2)

    log = manned.project.paths.logs / "workers.log"
    assert report.status == "failed"
    assert f"memory runs out; see {log} (attempt 3 of 3)" in report.error
    assert log.exists()


def test_workers_that_cannot_start_end_the_run_after_a_few_deaths(tmp_path: Path, ends: Ends) -> None:
    ghost = types.ModuleType("no_such_module")
    vars(ghost)["sage_operators"] = drive_operators.sage_operators
    flows = Flows(tmp_path, {"ghost": ghost})
    with pytest.raises(SageError) as caught:
        flows.run(tree("d.plain"), workers=4)

    run_id = only_run(flows)
    assert str(caught.value).startswith(f"run {run_id} failed: ")
    assert f"worker processes died; see {flows.project.paths.logs}/workers.log, which ends: " in str(caught.value)
    assert "No module named 'no_such_module'" in str(caught.value)
    assert status(flows, run_id) == "failed"


def test_a_large_run_calls_workers_by_itself_and_a_small_one_does_not(manned: Flows) -> None:
    small = manned.run(tree("d.pid", n=64, partition=16), workers=0)
    assert set(small.outputs["all"]) == {os.getpid()}

    graph, run_id = manned.graph(tree("d.pid", n=65, partition=32)), launch.new_run_id()
    prepared = launch.bind(graph, {}, manned.host, manned.project, run_id=run_id)
    large = launch.run(
        graph,
        prepared,
        run_id,
        host=manned.host,
        project=manned.project,
        settings=Settings(),
        watch=lambda event: None,
    )
    assert os.getpid() not in large.outputs["all"]
    assert large.status == "succeeded"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_with_needs_that_this_machine_has_runs_on_it(manned: Flows, workers: int) -> None:
    needy = tree("d.plain")
    needy["steps"]["act"]["needs"] = {"cpu": 0.5, "memory": "1MiB"}
    report = manned.run(needy, workers=workers)
    assert (report.status, report.outputs) == ("succeeded", {"all": ["0", "1", "2", "3"]})
    with manned.open_store() as store:
        assert {job.needs for job in store.jobs(report.run_id)} == {"", '{"cpu":0.5,"memory":1048576}'}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_waits_for_what_another_run_holds_of_this_machine(manned: Flows, workers: int) -> None:
    needy = tree("d.plain")
    whole = this_node(manned.project.config)
    needy["steps"]["act"]["needs"] = {"cpu": whole.cpu}
    asked = needs_text(Needs(cpu=whole.cpu))
    waited: list[dict[JobState, int]] = []
    with manned.open_store() as store:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="other", workflow="flow", status="running"))
            tx.insert_jobs([NewJob(run_id="other", stage="s", needs=asked)])
        (job,) = store.claim("w", lease_ms=600_000, run_id="other", node=whole.name, fits=fits(whole))

        def watch(event: Event) -> None:
            # The first picture that shows the source as done shows the jobs behind it waiting.
            if isinstance(event, Progress) and not waited:
                counts = store.counts(next(run.id for run in store.runs() if run.workflow == "driven"))
                if counts.get("done") == 1:
                    waited.append(counts)
                    store.give_back([(job.id, job.fence)])

        report = watched(manned, needy, watch, workers=workers)
    assert waited == [{"done": 1, "ready": 2}]
    assert report.status == "succeeded"


def test_a_silent_worker_of_a_driven_run_loses_its_job_to_another(tmp_path: Path) -> None:
    (tmp_path / "sage.toml").write_text("[workers]\nlease = 0.6\n")
    flows = Flows(tmp_path, {"driven": drive_operators}, config=Config(workers=WorkerConfig(lease=0.6)))
    report = watched(flows, tree("d.freeze", partition=1, flag=str(tmp_path / "flag")), lambda event: None, workers=2)
    assert report.status == "succeeded"
    with flows.open_store() as store:
        outcomes = [attempt.outcome for attempt in store.attempts(report.run_id)]
    assert (outcomes.count("expired"), outcomes.count("done")) == (1, 5)
