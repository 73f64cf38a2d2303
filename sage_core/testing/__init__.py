"""For authors of plugins: contract suites to subclass, and fakes that pass the same contracts as the real thing.

Names load when first used: the pytest plugin of SAGE is loaded by every pytest of an environment and costs it nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_core.testing.batching import Answer as Answer
    from sage_core.testing.batching import BatchingModel as BatchingModel
    from sage_core.testing.batching import Call as Call
    from sage_core.testing.batching import Simulation as Simulation
    from sage_core.testing.clock import FakeClock as FakeClock
    from sage_core.testing.clock import LoopClock as LoopClock
    from sage_core.testing.clock import SkippingLoop as SkippingLoop
    from sage_core.testing.clock import run_skipping as run_skipping
    from sage_core.testing.engine_contract import BackendContract as BackendContract
    from sage_core.testing.engine_contract import EmbedderContract as EmbedderContract
    from sage_core.testing.engine_contract import GeneratorContract as GeneratorContract
    from sage_core.testing.engine_contract import RerankerContract as RerankerContract
    from sage_core.testing.engine_contract import TokenizerContract as TokenizerContract
    from sage_core.testing.engines import FakeBackend as FakeBackend
    from sage_core.testing.engines import FakeEngine as FakeEngine
    from sage_core.testing.engines import FakeOptions as FakeOptions
    from sage_core.testing.fleet import Driven as Driven
    from sage_core.testing.fleet import FakeFleet as FakeFleet
    from sage_core.testing.fleet import drive as drive
    from sage_core.testing.flows import Flows as Flows
    from sage_core.testing.forward_contract import ForwarderContract as ForwarderContract
    from sage_core.testing.hosts import PluginContract as PluginContract
    from sage_core.testing.hosts import install_wheel as install_wheel
    from sage_core.testing.loads import arrivals as arrivals
    from sage_core.testing.loads import percentile as percentile
    from sage_core.testing.loads import schedulers_named as schedulers_named
    from sage_core.testing.loads import selector_named as selector_named
    from sage_core.testing.observers import JobObserverContract as JobObserverContract
    from sage_core.testing.operators import Example as Example
    from sage_core.testing.operators import OperatorContract as OperatorContract
    from sage_core.testing.schedulers import OrderingContract as OrderingContract
    from sage_core.testing.schedulers import SchedulerContract as SchedulerContract
    from sage_core.testing.selectors import NodeFilterContract as NodeFilterContract
    from sage_core.testing.selectors import NodePickerContract as NodePickerContract
    from sage_core.testing.selectors import NodeScorerContract as NodeScorerContract
    from sage_core.testing.store import JobStoreContract as JobStoreContract
    from sage_core.testing.triggers import TriggerContract as TriggerContract
    from sage_core.testing.upstream import FakeUpstream as FakeUpstream

#: Module below this package → the public names it owns.
_OWNERS = {
    "batching": "Answer BatchingModel Call Simulation",
    "clock": "FakeClock LoopClock SkippingLoop run_skipping",
    "engine_contract": "BackendContract EmbedderContract GeneratorContract RerankerContract TokenizerContract",
    "engines": "FakeBackend FakeEngine FakeOptions",
    "fleet": "Driven FakeFleet drive",
    "flows": "Flows",
    "forward_contract": "ForwarderContract",
    "hosts": "PluginContract install_wheel",
    "loads": "arrivals percentile schedulers_named selector_named",
    "observers": "JobObserverContract",
    "operators": "Example OperatorContract",
    "schedulers": "OrderingContract SchedulerContract",
    "selectors": "NodeFilterContract NodePickerContract NodeScorerContract",
    "store": "JobStoreContract",
    "triggers": "TriggerContract",
    "upstream": "FakeUpstream",
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _OWNERS.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
