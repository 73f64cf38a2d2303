"""Tests of sage_core.kernel.runtime.deployments: workflows kept under a name, and runs of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sage_core.builtins import default_host
from sage_core.common.errors import UnknownName, UsageError
from sage_core.kernel.runtime import deployments
from sage_core.kernel.runtime.deployments import Deployed
from sage_core.kernel.runtime.submit import Order, Place
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.schedule_operators import CRON, PLUGINS, WORKFLOW, Operators


@pytest.fixture
def flows(tmp_path: Path, sage_home: Path) -> Flows:
    return Flows(tmp_path, PLUGINS)


def deploy(flows: Flows, text: str = WORKFLOW, given: dict[str, object] | None = None, **options: Any) -> Deployed:
    graph = flows.graph(text)
    return deployments.deploy(graph, given or {}, host=flows.host, project=flows.project, **options)


def invoke(flows: Flows, given: dict[str, object] | None = None, **order: Any) -> str:
    wanted = Order(**{"queue": "", **order})
    return deployments.invoke("report", given or {}, wanted, host=flows.host, project=flows.project)


def params_of(flows: Flows, run_id: str) -> dict[str, object]:
    with flows.open_store() as store:
        return msgspec.msgpack.decode(store.run(run_id).params, type=dict[str, object])


def test_a_deployment_keeps_the_workflow_under_its_name(flows: Flows, tmp_path: Path) -> None:
    done = deploy(flows, given={"word": "good"}, queue="slow")
    assert (done.name, done.workflow, done.version, done.queue) == ("report", "report", 1, "slow")
    assert (done.schedules, done.dropped, done.warnings) == ((), 0, ())
    with flows.open_store() as store:
        row = deployments.find(store, "report")
    assert msgspec.msgpack.decode(row.params) == {"word": "good"}
    place = msgspec.msgpack.decode(row.options, type=Place)
    assert (place.cwd, place.project) == (str(Path.cwd()), str(tmp_path))


def test_deploying_again_replaces_it(flows: Flows) -> None:
    deploy(flows, given={"word": "first"})
    done = deploy(flows, WORKFLOW.replace("hello", "bye"), queue="other")
    assert (done.version, done.queue) == (2, "other")
    assert params_of(flows, invoke(flows))["word"] == "bye"


def test_a_name_of_its_own_makes_another_deployment(flows: Flows) -> None:
    deploy(flows)
    assert deploy(flows, name="second").name == "second"
    with flows.open_store() as store:
        assert [row.name for row in store.deployments()] == ["report", "second"]
        with pytest.raises(UnknownName, match=r"No deployment is named 'secnd'\. Did you mean 'second'\?"):
            deployments.find(store, "secnd")


@pytest.mark.parametrize("name", ["a b", "a/b", "-a", "ä\n"])
def test_a_name_that_could_not_be_typed_is_refused(flows: Flows, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a deployment"):
        deploy(flows, name=name)


def test_schedules_are_named_by_place_or_by_name(flows: Flows) -> None:
    done = deploy(flows, WORKFLOW + CRON + CRON + 'name = "early"\n')
    assert [each.id for each in done.schedules] == ["report/1", "report/early"]
    with pytest.raises(UsageError, match="two cron triggers of 'report' would be schedule 'report/a'"):
        deploy(flows, WORKFLOW + (CRON + 'name = "a"\n') * 2)
    again = deploy(flows, WORKFLOW + CRON)
    assert ([each.id for each in again.schedules], again.dropped) == (["report/1"], 1)


def test_a_trigger_that_is_unchanged_keeps_its_next_time(flows: Flows) -> None:
    deploy(flows, WORKFLOW + CRON)
    with flows.open_store() as store, store.transaction() as tx:
        tx.move_schedule("report/1", 7)
    assert [each.next_at for each in deploy(flows, WORKFLOW.replace("hello", "bye") + CRON).schedules] == [7]
    (changed,) = deploy(flows, WORKFLOW + CRON.replace("/5", "/10")).schedules
    assert changed.next_at is not None
    assert changed.next_at > 7


def test_without_the_plugin_nothing_is_deployed(flows: Flows, tmp_path: Path) -> None:
    bare = Flows(tmp_path, {"operators": Operators()})
    with pytest.raises(UsageError, match="No plugin fires 'cron' triggers"):
        deploy(bare, WORKFLOW + CRON)
    with flows.open_store() as store:
        assert store.deployments() == []
    # A trigger that others serve needs no plugin of ours.
    assert deploy(bare, WORKFLOW + '[[triggers.http]]\npath = "/ask"\n').schedules == ()


def test_params_are_read_when_they_are_given(flows: Flows) -> None:
    with pytest.raises(UsageError, match=r"the workflow 'report' has no param 'wrd'\. Did you mean 'word'\?"):
        deploy(flows, given={"wrd": "x"})
    with pytest.raises(UsageError, match="param 'n': 'x' is not an integer"):
        deploy(flows, WORKFLOW.replace("[params]", '[params]\nn = { type = "int", default = 1 }'), {"n": "x"})
    with pytest.raises(UsageError, match=r"param 'key' is secret and is not kept.*\n  help: .*export SAGE_PARAM_KEY=…"):
        deploy(flows, WORKFLOW.replace("[params]", '[params]\nkey = { type = "string", secret = true }'), {"key": "x"})


def test_a_value_is_kept_as_it_was_written(flows: Flows) -> None:
    """Text that is JSON once would not be JSON twice."""
    deploy(flows, WORKFLOW.replace("[params]", '[params]\nany = { type = "json", default = 1 }'), {"any": '"text"'})
    assert params_of(flows, invoke(flows))["any"] == "text"


def test_paths_start_where_they_were_written(flows: Flows, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with contextlib.chdir(tmp_path / "there"):
        done = deploy(flows, f'{WORKFLOW}{CRON}params = {{ file = "beside.txt" }}\n', {"file": "here.txt"})
    assert f'"file":"{tmp_path}/beside.txt"' in done.schedules[0].spec
    assert params_of(flows, invoke(flows))["file"] == f"{tmp_path}/there/here.txt"
    with contextlib.chdir(tmp_path / "there"):
        assert params_of(flows, invoke(flows, {"file": "~/x"}))["file"] == str(Path("~/x").expanduser())
        assert params_of(flows, invoke(flows, {"file": "other"}))["file"] == f"{tmp_path}/there/other"


def test_what_a_scheduled_run_lacks_here_is_a_warning(flows: Flows) -> None:
    secret = WORKFLOW.replace("[params]", '[params]\nkey = { type = "string", secret = true }') + CRON * 2
    (warning,) = deploy(flows, secret).warnings
    assert warning.startswith("a scheduled run could not start here: param 'key' is missing")


def test_invoking_queues_a_run_as_ordered(flows: Flows) -> None:
    deploy(flows, queue="slow", given={"word": "deployed"})
    ids = [invoke(flows), invoke(flows, {"word": "given"}, queue="fast", priority=3, delay_ms=60_000)]
    assert [params_of(flows, id)["word"] for id in ids] == ["deployed", "given"]
    with flows.open_store() as store:
        first, second = map(store.run, ids)
        assert [(run.queue, run.priority, run.deployment, run.status) for run in (first, second)] == [
            ("slow", 0, "report", "queued"),
            ("fast", 3, "report", "queued"),
        ]
        (job,) = store.jobs(second.id)
        assert job.run_at - second.created_at >= 60_000
        assert store.claim("w", queue="fast", lease_ms=1000) == []


def test_a_key_keeps_a_run_from_being_queued_twice(flows: Flows) -> None:
    deploy(flows)
    first = invoke(flows, unique_key="u")
    assert invoke(flows, unique_key="u", on_conflict="ignore") == first
    with pytest.raises(UsageError, match="has the unique key 'u' already"):
        invoke(flows, unique_key="u")
    second = invoke(flows, unique_key="u", on_conflict="replace")
    with flows.open_store() as store:
        assert [store.run(id).status for id in (first, second)] == ["cancelled", "queued"]
        assert store.runs_unheard(for_ms=0) == [], "the plugins have heard"


def test_a_removed_deployment_cannot_be_invoked_and_its_runs_stay(flows: Flows) -> None:
    deploy(flows, WORKFLOW + CRON)
    kept = invoke(flows)
    deployments.remove("report", flows.project)
    with pytest.raises(UnknownName, match=r"No deployment is named 'report'\. No deployment is known\. Make one: sage"):
        invoke(flows)
    with pytest.raises(UnknownName):
        deployments.remove("report", flows.project)
    with flows.open_store() as store:
        assert store.run(kept).status == "queued"
        assert store.schedules() == []


def test_a_graph_of_another_version_is_to_be_deployed_again(flows: Flows) -> None:
    deploy(flows)
    with flows.open_store() as store, store.transaction() as tx:
        tx.deploy(msgspec.structs.replace(deployments.find(tx, "report"), graph=b'{"nodes": []}'))
    with pytest.raises(UsageError, match=r"(?s)deployment 'report' was made by another version.*deploy it again"):
        invoke(flows)


def test_a_run_has_the_settings_of_where_it_was_deployed(flows: Flows, tmp_path: Path) -> None:
    (tmp_path / "sage.toml").write_text('[models.m]\nbackend = "null"\n')
    deploy(flows)
    elsewhere = Flows(tmp_path / "elsewhere", PLUGINS)
    with flows.open_store() as store:
        begun = deployments.prepare_start(
            store, "report", {}, Order(queue=""), host=default_host(PLUGINS), project=elsewhere.project
        )
    assert list(begun.prepared.models) == ["m"]
    assert begun.project.folder == tmp_path


@pytest.mark.parametrize("queue", ["run:261122", " "])
def test_a_queue_that_nobody_could_serve_is_refused(flows: Flows, queue: str) -> None:
    with pytest.raises(
        UsageError, match="cannot name a queue\n  help: a name is not empty and does not begin with 'run:'"
    ):
        deploy(flows, queue=queue)
    deploy(flows)
    with pytest.raises(UsageError, match="cannot name a queue"):
        invoke(flows, queue=queue)


def test_needs_that_no_node_meets_are_a_warning_and_no_run(flows: Flows) -> None:
    needy = WORKFLOW.replace('use = "s.upper"', 'use = "s.upper"\nneeds = { labels = ["tape"] }')
    deployed = deploy(flows, needy + CRON)
    assert [each.partition("\n")[0] for each in deployed.warnings] == [
        "a scheduled run could not start here: step 'upper' can run nowhere: "
        f"node {os.uname().nodename!r} lacks label 'tape'"
    ]
    with pytest.raises(UsageError, match="step 'upper' can run nowhere"):
        invoke(flows)
    with flows.open_store() as store:
        assert store.runs(9) == []
