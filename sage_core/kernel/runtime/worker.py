"""A worker process: claims jobs of one run until the run is over, its parent is gone, or it is told to stop.

Started by the run's driver as ``python -m sage_core.kernel.runtime.worker``; holds no model and sends no heartbeat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sage_core.common.config import load_config
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.platform.processes import this_process
from sage_core.platform.records import ENDED
from sage_core.platform.store import JobStore

#: Seconds between looks at the database's version counter (4 µs a look), and between looks at the jobs themselves.
GLANCE, LOOK = 0.01, 1.0


async def work(executor: Executor, store: JobStore, run_id: str, *, parent: int) -> None:
    """Run jobs as they become ready, until the run has ended or the parent process is gone."""
    while os.getppid() == parent:
        if await executor.one():
            continue
        if store.run(run_id).status in ENDED:
            return
        waited = 0.0
        while waited < LOOK and not store.changed() and os.getppid() == parent:
            await asyncio.sleep(GLANCE)
            waited += GLANCE


async def _main(options: argparse.Namespace, host: Host) -> None:
    paths = Paths(project=options.project, data=options.data, runtime=options.runtime)
    config = load_config(options.folder)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    # Ctrl-C reaches the whole process group; the driver decides what it means and sends SIGTERM.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    with JobStore.open(options.store, synchronous=config.store.synchronous) as store:
        store.register_worker(msgspec.structs.replace(this_process("worker"), id=options.id))
        run = store.run(options.run)
        executor = Executor(
            store,
            run,
            decode_prepared(run.plan),
            worker=options.id,
            host=host,
            paths=paths,
            config=config,
            inline=False,
            warn=lambda message: log("step_warned", level=logging.WARNING, message=message),
        )
        try:
            async with executor:
                await work(executor, store, run.id, parent=options.parent)
        finally:
            store.stop_worker(options.id)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; exit code 0 also when it was told to stop."""
    parser = argparse.ArgumentParser(prog="sage-worker", description=__doc__)
    for folder in ("project", "data", "runtime"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where sage.toml is looked for")
    parser.add_argument("--store", required=True, help="URL of the job store")
    parser.add_argument("--run", required=True)
    parser.add_argument("--id", required=True, help="incarnation under which jobs are claimed")
    parser.add_argument("--parent", type=int, required=True, help="process to outlive which would be wrong")
    parser.add_argument("--plugin", action="append", default=[], metavar="NAME=MODULE")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(message)s", stream=sys.stderr)
    modules = {name: importlib.import_module(module) for name, module in (p.split("=", 1) for p in options.plugin)}
    defaults = modules.pop("builtins", None)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_main(options, Host(modules, builtins=defaults)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
