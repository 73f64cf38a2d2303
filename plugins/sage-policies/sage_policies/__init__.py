"""The known scheduling policies and engine selectors, as baselines and for those whom they suit."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_schedulers() -> Mapping[str, str]:
    """Name the orders; fifo and priority come with the core."""
    return {
        "slo_aware": "sage_policies.slo_aware:SloAware",
        "sjf": "sage_policies.sjf:ShortestFirst",
        "cost_optimized": "sage_policies.cost_optimized:CostOptimized",
        "adaptive": "sage_policies.adaptive:Adaptive",
        "vtc": "sage_policies.vtc:VirtualTokenCounter",
    }


@hookimpl
def sage_node_selectors() -> Mapping[str, str]:
    """Name three scorers and two pickers; least_loaded and round_robin come with the core."""
    return {
        "least_work_left": "sage_policies.least_work_left:LeastWorkLeft",
        "prefix_affinity": "sage_policies.prefix_affinity:PrefixAffinity",
        "lmetric": "sage_policies.lmetric:LMetric",
        "power_of_two": "sage_policies.power_of_two:PowerOfTwo",
        "random": "sage_policies.random:Random",
    }
