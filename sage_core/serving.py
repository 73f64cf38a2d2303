"""What a gateway needs from the core, beside what every plugin needs: it serves the control plane to others.

Only the plugin that is the deployment's gateway may import this module; a linter contract says so.
"""

from __future__ import annotations

from sage_core.builtins import default_host as default_host
from sage_core.common.config import Config as Config
from sage_core.common.config import load_config as load_config
from sage_core.common.config import parse_config as parse_config
from sage_core.common.errors import EngineHostError as EngineHostError
from sage_core.common.errors import suggest as suggest
from sage_core.common.policies import scheduler_named as scheduler_named
from sage_core.common.ports import SagePorts as SagePorts
from sage_core.common.records import Lane as Lane
from sage_core.common.telemetry import log as log
from sage_core.common.telemetry import log_to_stderr as log_to_stderr
from sage_core.kernel.control_plane.driver import Driver as Driver
from sage_core.kernel.control_plane.driver import Sink as Sink
from sage_core.kernel.control_plane.driver import Trail as Trail
from sage_core.kernel.control_plane.events import Decided as Decided
from sage_core.kernel.control_plane.events import Instant as Instant
from sage_core.kernel.control_plane.events import lane_of as lane_of
from sage_core.kernel.control_plane.frames import private_folder as private_folder
from sage_core.kernel.control_plane.frames import socket_path as socket_path
from sage_core.kernel.control_plane.host import EngineHost as EngineHost
from sage_core.kernel.control_plane.host import elected as elected
from sage_core.kernel.control_plane.host import engine_host as engine_host
from sage_core.kernel.control_plane.model_specs import engine_needs as engine_needs
from sage_core.kernel.control_plane.model_specs import resolve_models as resolve_models
from sage_core.kernel.control_plane.pool_specs import members_of as members_of
from sage_core.kernel.control_plane.pool_specs import pool_of as pool_of
from sage_core.kernel.control_plane.recording import Recorder as Recorder
from sage_core.kernel.dataflow.graph import Graph as Graph
from sage_core.kernel.dataflow.units import seconds as seconds
from sage_core.kernel.dataflow.units import size as size
from sage_core.kernel.runtime.desk import DeployedGraph as DeployedGraph
from sage_core.kernel.runtime.desk import Desk as Desk
from sage_core.kernel.runtime.launch import Project as Project
from sage_core.kernel.runtime.launch import new_run_id as new_run_id
from sage_core.kernel.runtime.report import Report as Report
from sage_core.kernel.runtime.submit import caller_of as caller_of
from sage_core.kernel.scheduler.holdings import holdings_path as holdings_path
from sage_core.platform.records import ENDED as ENDED
from sage_core.platform.records import StoredRun as StoredRun
