"""Worker processes: ``serve`` works until it is told to stop, ``nest`` forks a child per order, most of them to die."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import psycopg  # noqa: F401 - loaded before the forks, so that a child costs milliseconds

from sage_core.common.errors import StoreUnavailable
from sage_core.platform.processes import this_process
from sage_core.platform.store import JobStore
from tests.chaos.clock import Clock
from tests.chaos.history import History
from tests.chaos.mutants import STORES, WORKS
from tests.chaos.severed import Severed
from tests.chaos.work import GLANCE, Work, artifacts


def serve(options: dict[str, Any]) -> None:
    """Work on a queue until SIGTERM; a database that is away is waited for."""
    over = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    # The driver warns of a connection that was cut while it was in use, which here is what is meant to happen.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    chance = random.Random(options["seed"])
    history = History(Path(options["history"]))
    store: JobStore | None = None
    while not over:
        try:
            if store is None:
                store = JobStore.open(options["url"])
                if options["clock"]:
                    Clock(Path(options["clock"])).govern(store)
                store.register_worker(msgspec.structs.replace(this_process("worker"), id=options["worker"]))
                worker = Work(
                    store,
                    history,
                    options["worker"],
                    lease_ms=options["lease_ms"],
                    pad=options.get("pad", 0),
                )
            if not worker.step(chance.randint(1, 4)):
                time.sleep(GLANCE)
        except StoreUnavailable:
            history.say("unavailable", options["worker"])
            time.sleep(GLANCE)
    if store is not None:
        store.close()


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Do one thing in a process of its own; see `processes.Nest.do`."""
    history = History(Path(order["history"]))
    store = STORES[order["store"]].open(order["url"])
    if order["idle_ms"]:
        store._db.run(f"SET idle_in_transaction_session_timeout = {order['idle_ms']}")
    severed = Severed(store._db)
    trace: list[str] = []
    if order["do"] != "drain":
        connection = getattr(store._db, "connection", None)
        if connection is not None:
            connection.set_trace_callback(trace.append)
        store = type(store)(severed)  # type: ignore[arg-type]
    stop_at = order["stop_at"]

    def story(where: str) -> None:
        if where == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    work = WORKS[order["work"]](
        store,
        history,
        order["worker"],
        queue=order["queue"],
        lease_ms=order["lease_ms"],
        files=artifacts(Path(order["files"])) if order["files"] else None,
        secret=order["secret"].encode(),
        story=story,
    )
    if order["do"] == "drain":
        work.drain(order["run"])
        return {}
    if order["do"] == "claim":
        trace.clear()
        with severed.armed(order["at"]):
            jobs = work.claim(order["limit"])
        return {"counted": severed.counted, "traced": len(trace), "jobs": len(jobs)}
    job, *more = work.claim(order["limit"])
    trace.clear()
    with severed.armed(order["at"], sent=order["sent"]):
        match order["do"]:
            case "renew":
                work.renew(job)
                store.renew_workers([work.name], order["lease_ms"])
            case "fail":
                store.fail(job.id, job.fence, "boom", retry_in_ms=0)
            case "give back":
                store.give_back([(job.id, job.fence)])
            case "complete":
                work.complete(job)
            case "batch":
                work.batch([job, *more])
            case "attempt":
                work.attempt(job)
            case other:
                raise ValueError(other)
    return {"counted": severed.counted, "traced": len(trace), "jobs": 1 + len(more)}


def nest(obey: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Fork for each line of stdin, let the child obey it, and say how that ended."""
    for text in sys.stdin:
        order = json.loads(text)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                os.write(writer, json.dumps(obey(order)).encode())
                code = 0
            except BaseException as error:
                os.write(writer, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            finally:
                os._exit(code)
        os.close(writer)
        print(json.dumps({"pid": child}), flush=True)
        with open(reader, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), **json.loads(said or b"{}")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "nest":
        nest(obey)
    else:
        serve(json.loads(sys.argv[2]))
