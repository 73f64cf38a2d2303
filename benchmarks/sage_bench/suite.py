"""Suite files: which cases, measured by what, on which data, with which options."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sage_bench.results import Measured
from sage_core import ConfigError, UnknownName

#: Name in a suite file → the record of its options, which is also what measures.
MEASURES = {
    "retrieval": "sage_bench.measures.retrieval:Retrieval",
    "answers": "sage_bench.measures.answers:Answers",
    "indexing": "sage_bench.measures.indexing:Indexing",
    "rows": "sage_bench.measures.rows:Rows",
    "jobs": "sage_bench.measures.jobs:Jobs",
    "queue": "sage_bench.measures.queue:Queue",
    "peers": "sage_bench.measures.peers:Peers",
    "pickup": "sage_bench.measures.pickup:Pickup",
    "waiting": "sage_bench.measures.waiting:Waiting",
    "commands": "sage_bench.measures.commands:Commands",
    "gateway": "sage_bench.measures.gateway:Gateways",
    "open_streams": "sage_bench.measures.open_streams:OpenStreams",
    "embedding": "sage_bench.measures.embedding:Embedding",
    "phases": "sage_bench.measures.phases:Phases",
    "isolation": "sage_bench.measures.isolation:Isolation",
    "attainment": "sage_bench.measures.attainment:Attainment",
    "decisions": "sage_bench.measures.decisions:Decisions",
    "control_plane": "sage_bench.measures.control_plane:ControlPlane",
}


#: What a line on standard error begins with that is for whoever waits.
PROGRESS = "progress: "


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure may use."""

    #: An empty folder, removed afterwards.
    work: Path
    seed: int
    repeat: int
    #: The data set the case asked for; None where it asked for none.
    data: Path | None = None

    def say(self, text: str) -> None:
        """Tell whoever waits how far it is."""
        sys.stderr.write(f"{PROGRESS}{text}\n")
        sys.stderr.flush()


class Measure(Protocol):
    """A record of options that can measure; it runs in a process of its own and may take minutes."""

    def measure(self, bench: Bench) -> Measured:
        """Measure; whatever it raises becomes the error of its case, and the other cases go on."""
        ...


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[cases.NAME]``: one measurement."""

    measure: str
    #: Name of the data set it needs; its folder is given on the command line.
    data: str = ""
    #: Left out unless it is asked for by name, or by an option of the command.
    optional: bool = False
    #: Replaces the suite's.
    repeat: int = 0
    options: dict[str, Any] = msgspec.field(default_factory=dict, name="with")


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A suite file."""

    suite: str
    title: str
    #: What its figures must not be taken for.
    shows_not: str
    repeat: int = 1
    cases: dict[str, Case]


def bundled() -> dict[str, Path]:
    """Name → file of the suites that come with this package."""
    here = Path(__file__).parent
    # An editable install reads them beside the package, a wheel carries them inside it.
    folder = next((each for each in (here / "suites", here.parent / "suites") if each.is_dir()), here)
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """The file that a command line names: a path, or the name of a bundled suite."""
    if Path(name).is_file():
        return Path(name)
    known = bundled()
    if name in known:
        return known[name]
    raise UnknownName("suite", name, list(known), "Or name a file.")


def load(file: Path) -> Suite:
    """Read a suite and check every option of every case, before anything is measured."""
    try:
        suite = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Suite)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(str(file), str(error)) from None
    for name, case in suite.cases.items():
        try:
            measure_of(case.measure, case.options)
        except msgspec.ValidationError as error:
            raise ConfigError(str(file), f"[cases.{name}] with: {error}") from None
    return suite


def measure_class(name: str) -> Any:
    """The record of a measure's options."""
    if name not in MEASURES:
        raise UnknownName("measure", name, list(MEASURES))
    module, _, attribute = MEASURES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def measure_of(name: str, options: Mapping[str, Any]) -> Measure:
    """Make the measure that a case names."""
    measure: Measure = msgspec.convert(options, measure_class(name))
    return measure
