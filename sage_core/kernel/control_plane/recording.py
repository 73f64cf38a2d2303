"""What a control plane was told and when, in a file; and the same decisions made again from it.

A recording is JSON lines: a header with everything that decides beside the inputs, then one `Instant` a line. It holds
sizes, digests and times, and never a text.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from sage_core.common.config import ClassConfig, Config, SchedulerConfig, SelectorConfig
from sage_core.common.errors import UsageError
from sage_core.common.records import Record
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.events import Action, Decided, DispatchBatch, DispatchOne, End, Instant, Submitted
from sage_core.kernel.control_plane.manager import ControlPlaneManager

#: Of the file; one with another number is refused.
FORMAT = 1
#: Seconds between an instant and the file, and bytes kept in memory at most.
FLUSH, KEPT = 1.0, 2**20


class Header(Record):
    """First line of a recording: what a fresh manager has to be made of."""

    format: int = FORMAT
    #: The version of SAGE that recorded it.
    sage: str = ""
    scheduler: SchedulerConfig = SchedulerConfig()
    selectors: dict[str, SelectorConfig] = {}
    classes: dict[str, ClassConfig] = {}
    #: What the policies' randomness begins with.
    seed: int = 0

    def config(self) -> Config:
        """The part of sage.toml that decides."""
        return msgspec.convert(
            {name: msgspec.to_builtins(getattr(self, name)) for name in ("scheduler", "selectors", "classes")}, Config
        )


class Recorder:
    """Appends instants to a file; give it to a `Driver` as `record`. A context manager.

    A file that cannot be written ends the recording, and no request.

    Args:
        path: the file, which begins afresh.
        config: what the recorded manager was made of; None is a sage.toml without settings.
    """

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.path = path
        config = config or Config()
        header = Header(
            sage=version("sage-core"),
            scheduler=config.scheduler,
            selectors=config.selectors,
            classes=dict(config.classes.items()),
        )
        try:
            # Sizes and times are nobody else's business either.
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"cannot record to {path}: {error.strerror}", "name a file in a folder that is there"
            ) from None
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray(self._encoder.encode(header) + b"\n")
        self._due: asyncio.TimerHandle | None = None
        self.flush()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, instant: Instant) -> None:
        """Take an instant in, before it is applied."""
        if self._file is None:
            return
        self._encoder.encode_into(instant, self._buffer, -1)
        self._buffer += b"\n"
        if len(self._buffer) >= KEPT:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(FLUSH, self.flush)

    def flush(self) -> None:
        """Write what is kept."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._file is None:
            return
        try:
            while self._buffer:
                del self._buffer[: os.write(self._file, self._buffer)]
        except OSError as error:
            log("recording_stopped", level=logging.ERROR, path=self.path, error=error)
            self._buffer.clear()
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Write what is kept, and take nothing more in."""
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Recording:
    """A recording that is read; a context manager, and an iterator over its instants.

    A last line that was cut off, when its writer was killed, counts as not written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        self._number = 1
        try:
            self.header = self._line(self._file.readline(), Header)
            if self.header.format != FORMAT:
                problem = f"{path} is a recording of format {self.header.format}, and this is {FORMAT}"
                raise UsageError(problem, f"replay it with SAGE {self.header.sage}, which recorded it")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Instant]:
        decoder = msgspec.json.Decoder(Instant)
        for line in self._file:
            self._number += 1
            if not line.endswith(b"\n"):
                return
            yield self._line(line, Instant, decoder)

    def _line(self, line: bytes, kind: type[Any], decoder: msgspec.json.Decoder[Any] | None = None) -> Any:
        try:
            return (decoder or msgspec.json.Decoder(kind)).decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = f"{self._path}, line {self._number}: it is no {kind.__name__.lower()} of a recording: {error}"
            raise UsageError(problem, "`sage serve --record FILE` writes one") from None


def replay(instants: Iterable[Instant], manager: ControlPlaneManager) -> Iterator[list[Action]]:
    """Feed recorded instants to a fresh manager and yield what it decides at each."""
    for instant in instants:
        yield manager.step(instant.inputs, instant.now)


class Difference(Record):
    """The first decision that was not made again."""

    request: str
    #: Which of the request's lines, 0 being the first, and what of it differs: a field, ``dispatch`` where another
    #: request was sent at that point or to another engine, or nothing for a line that is not there.
    line: int
    field: str = ""
    logged: Any = None
    replayed: Any = None


class Comparison(Record):
    """What a replay came to."""

    instants: int
    requests: int
    #: Lines of the log that were decided again, and those among them that are equal.
    compared: int
    equal: int
    #: Requests that had not ended where the recording ends: the log may know more of them.
    unfinished: int
    #: Lines that were decided again and are in no log.
    missing: int
    difference: Difference | None = None
    #: Where the replay went no further, and why: the inputs that follow a decision make no sense after another one.
    stopped: str = ""

    @property
    def same(self) -> bool:
        """Whether every decision was made again, and there was one."""
        return self.compared > 0 and self.difference is None and not self.stopped


def compare(recording: Iterable[Instant], manager: ControlPlaneManager, logs: Iterable[Path]) -> Comparison:
    """Decide again what was recorded, with a fresh manager, and hold it against the decision logs, older ones first."""
    instants, live, stopped = 0, 0, ""
    made: dict[str, list[Decided]] = {}
    #: Lines in the order in which they were decided: the instant, the request and the number of its line.
    order: list[tuple[int, str, int]] = []
    #: By ticket, with the instant.
    sent: dict[int, tuple[int, DispatchOne | DispatchBatch]] = {}
    ended: dict[str, None] = {}
    for instant in recording:
        instants += 1
        for event in instant.inputs:
            if isinstance(event, Submitted):
                made.setdefault(event.outline.id, [])
                live += 1
        try:
            actions = manager.step(instant.inputs, instant.now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it did not happen when this was recorded
            told = ", ".join(dict.fromkeys(type(event).__name__ for event in instant.inputs))
            stopped = f"instant {instants} of the recording ({told}): {type(error).__name__}: {error}"
            break
        for action in actions:
            if isinstance(action, Decided):
                order.append((instants, action.request, len(made[action.request])))
                made[action.request].append(action)
            elif isinstance(action, DispatchOne | DispatchBatch):
                sent[action.ticket] = instants, action
            elif isinstance(action, End):
                ended[action.request] = None
                live -= 1
    logged = _logged(logs, made)
    compared = equal = missing = 0
    since, first = _sent_elsewhere(logged, sent)
    for at, request, number in order:
        again, found = _plain(made[request][number]), logged.get(request, [])
        there = found[number] if number < len(found) else None
        compared += there is not None
        missing += there is None
        equal += again == there
        if again != there and (first is None or at < since):
            since, first = at, _difference(request, number, there, again)
    for request, found in logged.items():
        # What is only in the log of a request without an end came after the recording was cut off.
        if first is None and request in ended and len(found) > (number := len(made[request])):
            first = _difference(request, number, found[number], None)
    return Comparison(
        instants=instants,
        requests=len(made),
        compared=compared,
        equal=equal,
        unfinished=live,
        missing=missing,
        difference=first,
        stopped=stopped,
    )


def _sent_elsewhere(
    logged: dict[str, list[dict[str, Any]]], sent: dict[int, tuple[int, DispatchOne | DispatchBatch]]
) -> tuple[int, Difference | None]:
    """The first dispatch of other requests, or to another engine, than the log has by its number, and its instant."""
    by_ticket: dict[int, list[tuple[str, int, str]]] = {}
    for request, lines in logged.items():
        for number, line in enumerate(lines):
            by_ticket.setdefault(line["batch"], []).append((request, number, line["engine"]))
    for ticket in sorted(by_ticket.keys() & sent.keys()):
        instant, action = sent[ticket]
        requests = [action.request] if isinstance(action, DispatchOne) else [request for request, _ in action.rows]
        # Of a batch, texts that equal one of it have a line too.
        if any(request in requests and engine == action.engine for request, _, engine in by_ticket[ticket]):
            continue
        request, number, engine = by_ticket[ticket][0]
        if request in requests:
            field, there, again = "engine", engine, action.engine
        else:
            again = f"{', '.join(dict.fromkeys(requests))} to {action.engine}"
            field, there = "dispatch", f"{request} to {engine}"
        return instant, Difference(request=request, line=number, field=field, logged=there, replayed=again)
    return 0, None


def _difference(
    request: str, number: int, logged: dict[str, Any] | None, replayed: dict[str, Any] | None
) -> Difference:
    if logged is None or replayed is None:
        return Difference(request=request, line=number, logged=logged, replayed=replayed)
    field = next(name for name in {**replayed, **logged} if logged.get(name) != replayed.get(name))
    return Difference(request=request, line=number, field=field, logged=logged.get(field), replayed=replayed.get(field))


def _plain(line: Decided) -> dict[str, Any]:
    # By way of JSON, as the log is: it knows no tuples.
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(line))
    del fields["type"]
    return fields


def _logged(logs: Iterable[Path], requests: dict[str, list[Decided]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    decoder = msgspec.json.Decoder(dict[str, Any])
    for path in logs:
        with path.open("rb") as file:
            for line in file:
                # Lines of other deployments, and one that is being written.
                if line.endswith(b"\n") and (fields := decoder.decode(line)).get("request") in requests:
                    del fields["at"]
                    found.setdefault(fields["request"], []).append(fields)
    return found
