"""How long commands take to start, above ``python -c pass`` in the same round."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.home import WORKFLOWS, Home
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench

BASE = "python -c pass"


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command line, ``sage …`` or ``python …``; ``{workflows}`` stands for the folder of the suites' workflows."""

    run: str
    aim_ms: float | None = None
    #: False: with SAGE_PLUGINS set to nothing.
    plugins: bool = True
    #: Modules that it must not have imported by its end.
    without: tuple[str, ...] = ()


class Commands(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rounds are interleaved, so that a busy moment hits every command alike; the first round is not counted."""

    commands: dict[str, Command]

    def measure(self, bench: Bench) -> Measured:
        """Measure every command once a round."""
        home = Home(bench.work / "commands")
        lines = {name: (resolve(each.run), each.plugins) for name, each in self.commands.items()}
        base = resolve(BASE)
        taken: dict[str, list[float]] = {name: [] for name in lines}
        alone: list[float] = []
        for turn in range(bench.repeat + 1):
            python = home.run(base).seconds * 1000
            for name, (command, plugins) in lines.items():
                seconds = home.run(command, plugins=None if plugins else "").seconds
                if turn:
                    taken[name].append(seconds * 1000 - python)
            if turn:
                alone.append(python)
        figures = [_figure(BASE, alone, "median", None)]
        for name, values in taken.items():
            figures.append(_figure(f"{name}, above python", values, "median", self.commands[name].aim_ms))
            figures.append(_figure(f"{name}, above python, least", values, "min", None))
        imported = self._imports(home)
        return Measured(
            figures=tuple(figures),
            facts={
                f"{name}: imported of {', '.join(self.commands[name].without)}": hit for name, hit in imported.items()
            },
            remarks=tuple(
                f"{name} imports {', '.join(hit)}, which it must not" for name, hit in imported.items() if hit
            ),
        )

    def _imports(self, home: Home) -> dict[str, list[str]]:
        """Which of the modules that must not be imported were, by command."""
        found = {}
        for name, each in self.commands.items():
            if each.without:
                (heard,) = home.run(resolve(each.run), probe=True).heard
                found[name] = sorted(set(each.without) & set(heard.loaded))
        return found


def resolve(command: str) -> list[str]:
    """Split a command line; `sage` and `python` are those of this environment."""
    name, *arguments = shlex.split(command.replace("{workflows}", str(WORKFLOWS)))
    beside = Path(sys.executable).with_name(name)
    return [str(beside) if beside.exists() else name, *arguments]


def _figure(name: str, values: list[float], statistic: Any, aim: float | None) -> Figure:
    return Figure(
        name=name,
        unit="ms",
        values=tuple(round(value, 2) for value in values),
        statistic=statistic,
        better="lower",
        aim=aim,
    )
