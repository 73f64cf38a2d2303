"""The policy keeps the contract of schedulers, whole and with each part switched off."""

from __future__ import annotations

from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core.testing import SchedulerContract


class TestHybrid(SchedulerContract):
    make = HybridSchedulingPolicy


class TestWithoutRelease(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(release=False)


class TestWithoutOrder(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(order=False)


class TestWithoutAllocate(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(allocate=False)


class TestWithoutPlace(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(place=False)


class TestWithoutOverload(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(overload=False)


class TestWithEveryOption(SchedulerContract):
    def make(self) -> HybridSchedulingPolicy:
        return HybridSchedulingPolicy(reserve=1, aging=0.05, boost=2.0, quantum=0.01, strict=True, defer=0.01, shed=0.5)
