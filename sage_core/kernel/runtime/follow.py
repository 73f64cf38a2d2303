"""Waits for a run that others drive, and reports it as its driver would."""

from __future__ import annotations

import time

import msgspec

from sage_core.common.paths import Paths
from sage_core.kernel.runtime.finish import conclude
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.progress import Gauge, Watch
from sage_core.kernel.runtime.report import Report, silent_steps, written_by
from sage_core.kernel.runtime.results import Tables
from sage_core.kernel.runtime.values import Codec
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.records import ENDED, StoredRun
from sage_core.platform.store import JobStore

#: Seconds between two looks at whether the store has changed, and after which it is read all the same.
GLANCE, LOOK = 0.05, 2.0


def follow(store: JobStore, run_id: str, *, paths: Paths, watch: Watch) -> Report:
    """Wait until a run has ended, telling how far it is, and say what it came to."""
    run = store.run(run_id)
    gauge = Gauge(store, run, decode_prepared(run.plan), worker="", generated=lambda: 0)
    looked = time.monotonic()
    while run.status not in ENDED:
        if store.changed() or time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            run = store.run(run_id)
            watch(gauge.read())
        else:
            time.sleep(GLANCE)
    return _report(store, run, paths)


def _report(store: JobStore, run: StoredRun, paths: Paths) -> Report:
    codec = Codec(paths.artifacts)
    inputs = Inputs(run.id, decode_prepared(run.plan), Tables(codec, ArtifactStore(paths.artifacts)), codec)
    found = conclude(store, inputs, run)
    return Report(
        run_id=run.id,
        status=run.status,
        outputs=msgspec.msgpack.decode(run.outputs) if run.outputs else {},
        steps=found.steps,
        tokens=dict(found.tokens),
        written_by=written_by(inputs),
        error=run.error,
        failures=found.failures,
        warnings=silent_steps(inputs.prepared.graph, found.steps),
    )
