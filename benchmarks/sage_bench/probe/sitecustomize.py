"""Stamps what a Python process does, from its first moment; imported by `site` when its folder is on ``PYTHONPATH``.

It hears the interpreter's own audit events (imports, connections, spawned processes), so nothing in SAGE is changed
or wrapped to be timed. ``SAGE_BENCH_PROBE`` names the folder that receives one file per process;
``SAGE_BENCH_SQL=1`` also counts SQL statements, by SQLite's trace callback on every connection: for counts, not times.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections import Counter
from typing import Any

#: First imports worth a stamp: each opens a phase.
WATCHED = frozenset(
    (
        *("sage_core.cli.main", "sage_core.builtins", "sage_core.kernel.dataflow.check", "sage_core.cli.outcome"),
        *("sage_core.kernel.runtime.launch", "sage_core.kernel.runtime.worker", "sage_core.kernel.control_plane.host"),
        *("onnxruntime", "xllamacpp", "sqlalchemy", "alembic", "pyarrow", "numpy"),
    )
)
#: First runs of module files worth a stamp: the first operator that a workflow names, and where a model is loaded.
FILES = ("/sage_rag/files.py", "/sage_onnx/engine.py")


def install(folder: str, *, count_sql: bool) -> None:
    """Listen until the process ends; the file is complete once it has."""
    stamps: list[tuple[str, int]] = [("start", time.monotonic_ns())]
    statements: Counter[str] = Counter()
    waiting = set(WATCHED)

    def trace(statement: str) -> None:
        statements[" ".join(statement.split(None, 2)[: 2 if statement[:6].upper() == "PRAGMA" else 1]).upper()] += 1

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            if arguments[0] in waiting:
                waiting.discard(arguments[0])
                stamps.append((f"import {arguments[0]}", time.monotonic_ns()))
        elif event == "exec":
            # Modules that are imported by name are heard here only.
            file = getattr(arguments[0], "co_filename", "")
            if file.endswith(FILES) and file not in waiting:
                waiting.add(file)
                stamps.append((f"exec {'/'.join(file.rsplit('/', 2)[1:])}", time.monotonic_ns()))
        elif event == "sqlite3.connect/handle":
            stamps.append(("connect", time.monotonic_ns()))
        elif event in ("subprocess.Popen", "os.posix_spawn"):
            stamps.append((f"spawn {' '.join(map(str, arguments[1]))[:200]}", time.monotonic_ns()))

    def write() -> None:
        stamps.append(("exit", time.monotonic_ns()))
        loaded = sorted(name for name in WATCHED if name in sys.modules)
        heard = {"argv": sys.orig_argv, "stamps": stamps, "statements": statements, "loaded": loaded}
        file = os.path.join(folder, str(os.getpid()))
        with open(file, "w", encoding="utf-8") as out:
            json.dump(heard, out)
        # Renamed when complete, because whoever waits for it looks for the name.
        os.rename(file, f"{file}.json")

    if count_sql:
        # An audit event comes before a connection accepts a callback, so here the function that makes one is replaced.
        import sqlite3  # noqa: PLC0415 - 15 ms that are not to be in a timed process

        plain = sqlite3.connect

        def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = plain(*arguments, **options)
            connection.set_trace_callback(trace)
            return connection

        sqlite3.connect = connect  # type: ignore[assignment]

    atexit.register(write)
    sys.addaudithook(hear)


if os.environ.get("SAGE_BENCH_PROBE"):
    install(os.environ["SAGE_BENCH_PROBE"], count_sql=os.environ.get("SAGE_BENCH_SQL") == "1")
