"""What stages ask of a node, and what no node can give, said before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sage_core import Needs, Node
from sage_core.common.config import ClusterConfig, Config
from sage_core.common.errors import ConfigError, UsageError
from sage_core.common.records import ModelSpec
from sage_core.kernel.control_plane.model_specs import engine_needs
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.demands import demands, refuse_unmet
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.submit import Order
from sage_core.testing import engines
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators

CPU = Node(name="cpu", cpu=4, memory=8 << 30)
GPU = Node(name="gpu", cpu=64, memory=8 << 30, gpu=2, labels=("gpu", "fast"))


def tree(needs: dict[str, Any]) -> dict[str, Any]:
    return {
        "steps": {
            "rows": {"use": "f.items", "with": {"texts": ["a"]}},
            "up": {"use": "f.upper", "in": {"text": "rows.text"}, "needs": needs},
        }
    }


def prepared(flows: Flows, workflow: dict[str, Any]) -> Prepared:
    return launch.bind(flows.graph(workflow), {}, flows.host, flows.project, run_id="r")


def test_no_needs_ask_for_nothing(flows: Flows) -> None:
    found = demands(prepared(flows, tree({})))
    assert {(demand.text, demand.needs, demand.models) for demand in found.values()} == {("", Needs(), ())}


def refused(made: Prepared, *nodes: Node) -> str:
    with pytest.raises(UsageError) as caught:
        refuse_unmet(made, lambda: nodes)
    return str(caught.value).splitlines()[0]


def test_what_every_node_lacks_is_named_by_step_and_node(flows: Flows) -> None:
    made = prepared(flows, tree({"gpu": 1, "labels": ["fast", "ssd"]}))
    assert refused(made, CPU) == (
        "step 'up' can run nowhere: node 'cpu' lacks gpu = 1 (it has none), label 'fast', label 'ssd'"
    )
    assert refused(made, CPU, GPU).endswith("label 'ssd'; node 'gpu' lacks label 'ssd'")
    refuse_unmet(prepared(flows, tree({"gpu": 2, "labels": ["fast"]})), lambda: [CPU, GPU])
    made = prepared(flows, tree({"gpu": 1, "gpu_memory": "40GiB"}))
    assert refused(made, GPU).endswith("node 'gpu' lacks gpu_memory = 40 GiB ([cluster] says none)")


def test_nodes_are_not_looked_for_where_nothing_is_needed(flows: Flows) -> None:
    refuse_unmet(prepared(flows, tree({})), lambda: pytest.fail("nobody asked"))


def test_a_graph_that_needs_a_gpu_fails_before_it_runs_on_a_machine_without(tmp_path: Path) -> None:
    flows = Flows(tmp_path, {"flows": flow_operators}, config=Config(cluster=ClusterConfig(node="here", gpu=0)))
    needy = tree({"gpu": 1})
    with pytest.raises(UsageError, match=r"step 'up' can run nowhere: node 'here' lacks gpu = 1 \(it has none\)"):
        flows.run(needy)
    with pytest.raises(UsageError, match="lower its needs, start a worker where it is met"):
        flows.plan(needy)
    graph, made = flows.graph(needy), prepared(flows, needy)

    def enqueue() -> str:
        return launch.enqueue(graph, made, "r", host=flows.host, project=flows.project, order=Order())

    with pytest.raises(UsageError, match="step 'up' can run nowhere"):
        enqueue()
    with flows.open_store() as store:
        assert store.runs() == []
        with store.transaction() as tx:
            body = msgspec.json.encode(GPU).decode()
            tx.announce_node(name="gpu", supervisor="s", host="h", body=body, node_ms=0, silence_ms=1)
            # A node that scaled to zero comes back when there is work for it.
            tx.stop_node(name="gpu", supervisor="s")
    assert enqueue() == "r"
    assert flows.plan(needy)["up"].verb == "deferred"


def test_a_job_takes_from_its_models_the_place_and_not_their_resources(tmp_path: Path) -> None:
    flows = Flows(tmp_path, {"flows": flow_operators, "fakes": engines})
    big = {"backend": "fake", "needs": {"gpu": 1, "memory": "2GiB", "labels": ["h200"]}}
    workflow = tree({"cpu": 1})
    workflow["models"] = {"big": big, "unused": {"backend": "fake", "needs": {"gpu": 9}}}
    workflow["steps"]["up"] |= {"use": "f.ask", "with": {"model": "big"}}
    made = prepared(flows, workflow)
    assert demands(made)["up"].text == '{"cpu":1.0,"labels":["gpu","h200"]}'
    assert demands(made)["up"].models == ("big",)
    assert refused(made, CPU).startswith("model 'big' can run nowhere: node 'cpu' lacks gpu = 1 (it has none), label")


@pytest.mark.parametrize("needs", [{"memory": "much"}, {"gpu_memory": "much"}, {"gpu": "one"}])
def test_needs_of_a_model_that_make_no_sense_are_named(needs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\[models.big\] needs"):
        engine_needs(ModelSpec(name="big", backend="fake", needs=needs))
