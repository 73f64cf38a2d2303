"""Every policy and selector keeps the contract of its kind."""

from __future__ import annotations

from sage_policies.adaptive import Adaptive
from sage_policies.cost_optimized import CostOptimized
from sage_policies.least_work_left import LeastWorkLeft
from sage_policies.lmetric import LMetric
from sage_policies.power_of_two import PowerOfTwo
from sage_policies.prefix_affinity import PrefixAffinity
from sage_policies.random import Random
from sage_policies.sjf import ShortestFirst
from sage_policies.slo_aware import SloAware
from sage_policies.vtc import VirtualTokenCounter

from sage_core.testing import NodePickerContract, NodeScorerContract, SchedulerContract


class TestSloAware(SchedulerContract):
    make = SloAware


class TestSloAwareWithoutPatience(SchedulerContract):
    def make(self) -> SloAware:
        return SloAware(aging=0.05)


class TestShortestFirst(SchedulerContract):
    make = ShortestFirst


class TestShortestFirstWithoutPatience(SchedulerContract):
    def make(self) -> ShortestFirst:
        return ShortestFirst(aging=0.01)


class TestCostOptimized(SchedulerContract):
    make = CostOptimized


class TestAdaptive(SchedulerContract):
    make = Adaptive


class TestAdaptiveThatWavers(SchedulerContract):
    def make(self) -> Adaptive:
        return Adaptive(high=0.1, low=0.05, aging=1.0)


class TestVirtualTokenCounter(SchedulerContract):
    make = VirtualTokenCounter


class TestLeastWorkLeft(NodeScorerContract):
    make = LeastWorkLeft


class TestPrefixAffinity(NodeScorerContract):
    make = PrefixAffinity


class TestLMetric(NodeScorerContract):
    make = LMetric


class TestPowerOfTwo(NodePickerContract):
    make = PowerOfTwo


class TestRandom(NodePickerContract):
    make = Random
