"""What a run is pinned to: its graph, and the code of SAGE and of its operators; and how what is here now differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from sage_core.common.errors import SageError
from sage_core.common.host import Host
from sage_core.kernel.dataflow import identity
from sage_core.kernel.dataflow.graph import Graph, decode
from sage_core.kernel.runtime.prepared import SAGE, Prepared, decode_prepared, package_of
from sage_core.kernel.runtime.submit import Place
from sage_core.kernel.runtime.values import digest
from sage_core.platform.records import StoredRun
from sage_core.platform.transaction import Transaction

#: Reads a workflow file, under a profile or none.
Load = Callable[[Path, str | None], Graph]


class OtherCode(Exception):
    """The code in this process is not what the run is pinned to; says how it differs."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__(lines)
        self.lines = lines

    def __str__(self) -> str:
        return "; ".join(self.lines)


def code_here(prepared: Prepared, host: Host, seen: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """The code behind the run's operators as this process has it, by package; what is not installed is left out."""
    sources = seen if seen is not None else {}
    found = {SAGE: version(SAGE)}
    for step in prepared.graph.steps.values():
        if step.join is None and step.use in host.operators:
            target = host.operators[step.use]
            found[package_of(step.use, target)] = identity.code_key(target, sources)
    return found


def differences(pins: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, ...]:
    """Say of each package whose code differs what it was and what it is; one that is not here is no difference."""
    return tuple(
        f"{name}: {_short(version)} → {_short(here[name])}"
        for name, version in sorted(pins.items())
        if name in here and here[name] != version
    )


def refuse_other_code(run: StoredRun, prepared: Prepared, host: Host) -> None:
    """Raise `OtherCode` where this process would run other code than the run is pinned to."""
    if found := differences(decode_pins(run.pins), code_here(prepared, host)):
        raise OtherCode(found)


def decode_pins(data: bytes) -> dict[str, str]:
    """Read a run's pins; a run without any may be run by all."""
    return msgspec.msgpack.decode(data, type=dict[str, str]) if data else {}


def graph_changes(old: Graph, new: Graph) -> tuple[str, ...]:
    """Say what a later form of a workflow adds, removes and changes."""
    lines = [f"step {name!r} added" for name in new.steps if name not in old.steps]
    lines += [f"step {name!r} removed" for name in old.steps if name not in new.steps]
    for name, step in old.steps.items():
        if name in new.steps and new.steps[name] != step:
            fields = (f for f in step.__struct_fields__ if getattr(step, f) != getattr(new.steps[name], f))
            lines.append(f"step {name!r} changed: {', '.join(fields)}")
    tables = ("params", "models", "outputs")
    return tuple(lines + [f"{name} changed" for name in tables if getattr(old, name) != getattr(new, name)])


def workflow_changes(run: StoredRun, load: Load) -> tuple[str, ...]:
    """Say how a run's workflow file differs from what the run was started with."""
    place = msgspec.msgpack.decode(run.options, type=Place) if run.options else None
    if place is None or not place.workflow:
        return ()
    path = Path(place.workflow)
    if not path.is_file():
        return (f"{path} is gone",)
    try:
        return graph_changes(decode(run.graph), load(path, place.profile))
    except SageError as error:
        return (f"{path} cannot be read any more: {str(error).splitlines()[0]}",)


def changes_since(run: StoredRun, host: Host, load: Load) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How the workflow file, and the code, differ from what a run was started with."""
    here = code_here(decode_prepared(run.plan), host)
    return workflow_changes(run, load), differences(decode_pins(run.pins), here)


def repin(tx: Transaction, run: StoredRun, host: Host) -> None:
    """Let a run go on under the code that is here; what it computes from now on is not mixed with what it did."""
    prepared = decode_prepared(run.plan)
    pins = {**decode_pins(run.pins), **code_here(prepared, host)}
    salt = digest(*(f"{name}={version}" for name, version in sorted(pins.items())))
    plan = msgspec.structs.replace(prepared.salted(prepared.graph.steps, salt), pins=pins)
    tx.pin_run(run.id, pins=msgspec.msgpack.encode(pins), plan=plan.encode())


def _short(version: str) -> str:
    """A code key with the start of its digest."""
    kind, _, rest = version.partition(":")
    name, _, digest = rest.rpartition(":")
    return f"{name or kind} ({digest[:8]})" if digest and kind != "version" else rest or kind
