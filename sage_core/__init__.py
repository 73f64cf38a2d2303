"""SAGE: a serverless, plugin-based workflow engine for LLM and AI pipelines.

The one public face: plugins import from here or from `sage_core.testing`. Names load when first used, so importing
`sage_core` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_core.api import run as run
    from sage_core.common.clock import MILLISECOND as MILLISECOND
    from sage_core.common.clock import SECOND as SECOND
    from sage_core.common.clock import Clock as Clock
    from sage_core.common.contracts import Backend as Backend
    from sage_core.common.contracts import Embeds as Embeds
    from sage_core.common.contracts import Engine as Engine
    from sage_core.common.contracts import Fleet as Fleet
    from sage_core.common.contracts import Forwards as Forwards
    from sage_core.common.contracts import Generates as Generates
    from sage_core.common.contracts import InferenceClient as InferenceClient
    from sage_core.common.contracts import NodeFilter as NodeFilter
    from sage_core.common.contracts import NodePicker as NodePicker
    from sage_core.common.contracts import NodeScorer as NodeScorer
    from sage_core.common.contracts import Ordering as Ordering
    from sage_core.common.contracts import Reranks as Reranks
    from sage_core.common.contracts import Scheduler as Scheduler
    from sage_core.common.contracts import Shared as Shared
    from sage_core.common.contracts import Tokenizes as Tokenizes
    from sage_core.common.contracts import TriggerKind as TriggerKind
    from sage_core.common.contracts import Watched as Watched
    from sage_core.common.cron import parse_cron as parse_cron
    from sage_core.common.errors import AttemptFailed as AttemptFailed
    from sage_core.common.errors import BadValue as BadValue
    from sage_core.common.errors import ConfigError as ConfigError
    from sage_core.common.errors import InvalidRequest as InvalidRequest
    from sage_core.common.errors import ModelError as ModelError
    from sage_core.common.errors import NoEngine as NoEngine
    from sage_core.common.errors import OperatorError as OperatorError
    from sage_core.common.errors import PluginError as PluginError
    from sage_core.common.errors import RequestRejected as RequestRejected
    from sage_core.common.errors import SageError as SageError
    from sage_core.common.errors import UnknownName as UnknownName
    from sage_core.common.errors import UsageError as UsageError
    from sage_core.common.heap import Ranked as Ranked
    from sage_core.common.heap import WorkHeap as WorkHeap
    from sage_core.common.hookspecs import hookimpl as hookimpl
    from sage_core.common.host import Host as Host
    from sage_core.common.operators import Artifact as Artifact
    from sage_core.common.operators import ArtifactDir as ArtifactDir
    from sage_core.common.operators import Batch as Batch
    from sage_core.common.operators import Context as Context
    from sage_core.common.operators import Dataset as Dataset
    from sage_core.common.operators import Keep as Keep
    from sage_core.common.operators import RowError as RowError
    from sage_core.common.operators import Vector as Vector
    from sage_core.common.operators import Vectors as Vectors
    from sage_core.common.operators import operator as operator
    from sage_core.common.paths import Paths as Paths
    from sage_core.common.paths import find_paths as find_paths
    from sage_core.common.policies import KeyedScheduler as KeyedScheduler
    from sage_core.common.policies import prefer_low as prefer_low
    from sage_core.common.records import Attempt as Attempt
    from sage_core.common.records import Caller as Caller
    from sage_core.common.records import Candidate as Candidate
    from sage_core.common.records import Capacity as Capacity
    from sage_core.common.records import Chunk as Chunk
    from sage_core.common.records import Decision as Decision
    from sage_core.common.records import Dispatch as Dispatch
    from sage_core.common.records import EngineDown as EngineDown
    from sage_core.common.records import EngineInfo as EngineInfo
    from sage_core.common.records import EngineUp as EngineUp
    from sage_core.common.records import Event as Event
    from sage_core.common.records import Finished as Finished
    from sage_core.common.records import First as First
    from sage_core.common.records import Idle as Idle
    from sage_core.common.records import Kind as Kind
    from sage_core.common.records import Lane as Lane
    from sage_core.common.records import ModelSpec as ModelSpec
    from sage_core.common.records import Needs as Needs
    from sage_core.common.records import Node as Node
    from sage_core.common.records import Occupancy as Occupancy
    from sage_core.common.records import Place as Place
    from sage_core.common.records import PoolSpec as PoolSpec
    from sage_core.common.records import Progress as Progress
    from sage_core.common.records import Queued as Queued
    from sage_core.common.records import QueueLimits as QueueLimits
    from sage_core.common.records import Rejected as Rejected
    from sage_core.common.records import Request as Request
    from sage_core.common.records import Run as Run
    from sage_core.common.records import ServiceClass as ServiceClass
    from sage_core.common.records import Shed as Shed
    from sage_core.common.records import StepTime as StepTime
    from sage_core.common.records import Token as Token
    from sage_core.common.records import Verdict as Verdict
    from sage_core.common.records import Withdrawn as Withdrawn
    from sage_core.common.records import Work as Work
    from sage_core.common.telemetry import log as log
    from sage_core.kernel.dataflow.stream import Value as Value
    from sage_core.kernel.dataflow.stream import Workflow as Workflow

__version__ = "0.1.0"

#: The module that owns public names → those names.
_OWNERS = {
    "api": "run",
    "common.clock": "MILLISECOND SECOND Clock",
    "common.contracts": "Backend Embeds Engine Fleet Forwards Generates InferenceClient NodeFilter NodePicker "
    "NodeScorer Ordering Reranks Scheduler Shared Tokenizes TriggerKind Watched",
    "common.cron": "parse_cron",
    "common.errors": "AttemptFailed BadValue ConfigError InvalidRequest ModelError NoEngine OperatorError PluginError "
    "RequestRejected SageError UnknownName UsageError",
    "common.heap": "Ranked WorkHeap",
    "common.hookspecs": "hookimpl",
    "common.host": "Host",
    "common.operators": "Artifact ArtifactDir Batch Context Dataset Keep RowError Vector Vectors operator",
    "common.paths": "Paths find_paths",
    "common.policies": "KeyedScheduler prefer_low",
    "common.records": "Attempt Caller Candidate Capacity Chunk Decision Dispatch EngineDown EngineInfo EngineUp "
    "Event Finished First Idle Kind Lane ModelSpec Needs Node Occupancy Place PoolSpec Progress Queued QueueLimits "
    "Rejected Request Run ServiceClass Shed StepTime Token Verdict Withdrawn Work",
    "common.telemetry": "log",
    "kernel.dataflow.stream": "Value Workflow",
}
_MODULES = {name: f"sage_core.{module}" for module, names in _OWNERS.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
    raise AttributeError(f"module 'sage_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
