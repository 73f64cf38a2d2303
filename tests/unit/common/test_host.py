"""The host: what a plugin adds, what is quarantined and why, and that core commands survive all of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest

from sage_core import Host, Run, UnknownName, hookimpl
from sage_core.builtins import default_host
from sage_core.common.errors import PluginError

HERE = __name__
RUN = Run(id="r1", workflow="w", status="succeeded", created_at="2026-01-01T00:00:00Z")


class Priority:
    """A second policy."""

    def rank(self, work: object) -> float:
        return 0.0


class Offers:
    """A plugin made of what a test gives it."""

    def __init__(self, **entries: object) -> None:
        self._entries = entries

    @hookimpl
    def sage_schedulers(self) -> Mapping[str, object]:
        return self._entries


def quarantined(plugin: object) -> str:
    """Return the reason why a host refuses the plugin, after seeing that it took everything else."""
    host = default_host({"bad": plugin, "good": Offers(first=f"{HERE}:Priority")})
    infos = {info.name: info for info in host.plugins()}
    assert infos["good"].error == ""
    assert list(host.schedulers) == ["fifo", "first", "priority"]
    return infos["bad"].error


# ---------------------------------------------------------------- what a plugin adds


def test_names_are_known_without_importing_what_is_behind_them() -> None:
    host = Host({"lazy": Offers(later="no_such_module_anywhere:Policy")})
    assert list(host.schedulers) == ["later"]
    assert host.contributions("lazy") == {"schedulers": ["later"]}
    assert host.schedulers.origin("later") == "lazy"
    assert host.schedulers.target("later") == "no_such_module_anywhere:Policy"
    assert "later" in host.schedulers
    assert len(host.schedulers) == 1


def test_an_entry_is_imported_when_it_is_first_used_and_kept() -> None:
    host = Host({"good": Offers(priority=f"{HERE}:Priority")})
    assert host.schedulers["priority"] is host.schedulers["priority"]
    assert host.schedulers["priority"].__name__ == "Priority"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_anywhere:X", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        (f"{HERE}:Prioritie", f"AttributeError: module '{HERE}' has no attribute 'Prioritie'"),
    ],
)
def test_an_entry_that_cannot_be_imported_names_its_plugin(target: str, reason: str) -> None:
    host = Host({"hasty": Offers(policy=target)})
    with pytest.raises(PluginError) as caught:
        host.schedulers["policy"]
    assert str(caught.value) == f"plugin 'hasty': scheduler 'policy' ({target}) cannot be imported: {reason}"
    assert [str(problem) for problem in host.check()] == [str(caught.value)]


def test_a_name_twice_stays_with_the_first_and_is_reported() -> None:
    host = default_host({"late": Offers(fifo=f"{HERE}:Priority")})
    assert host.schedulers.origin("fifo") == "builtins"
    (problem,) = host.check()
    assert str(problem) == "The scheduler 'fifo' is offered by both 'builtins' and 'late'. Uninstall one of them."


def test_a_plugin_cannot_take_the_name_of_another() -> None:
    host = default_host({"builtins": Offers(priority=f"{HERE}:Priority")})
    assert list(host.schedulers) == ["fifo", "priority"]
    (problem,) = host.check()
    assert str(problem) == "The plugin 'builtins' is offered by both 'builtins' and 'builtins'. Uninstall one of them."


def test_an_unknown_name_is_suggested_and_absent_plugins_are_named() -> None:
    host = default_host({"broken": SimpleNamespace()})
    with pytest.raises(UnknownName) as caught:
        host.schedulers["fito"]
    assert str(caught.value) == (
        "No scheduler is named 'fito'. Did you mean 'fifo'? Known: fifo, priority. "
        "Not loaded: broken (implements no hook)."
    )


# ---------------------------------------------------------------- what is quarantined


class NoHook:
    """Nothing of SAGE's."""


class Misspelt:
    @hookimpl
    def sage_scheduler(self) -> Mapping[str, str]:
        return {}


class Unmarked:
    def sage_schedulers(self) -> Mapping[str, str]:
        return {}


class WithDefault:
    @hookimpl
    def sage_on_run_finished(self, run: Run | None = None) -> None:
        raise AssertionError("never called without its argument")


class ExtraArgument:
    @hookimpl
    def sage_on_run_finished(self, run: Run, host: Host) -> None:
        pass


class Asynchronous:
    @hookimpl
    async def sage_schedulers(self) -> Mapping[str, str]:
        return {}


class Wrapping:
    @hookimpl(wrapper=True)
    def sage_schedulers(self) -> Iterator[None]:
        yield


class Listing:
    @hookimpl
    def sage_schedulers(self) -> list[str]:
        return ["fifo"]


class Exploding:
    @hookimpl
    def sage_schedulers(self) -> Mapping[str, str]:
        raise RuntimeError("boom")


class Leaving:
    @hookimpl
    def sage_schedulers(self) -> Mapping[str, str]:
        sys.exit(3)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (NoHook(), "implements no hook\n  help: hooks: sage_"),
        (Misspelt(), "sage_scheduler is no hook. Did you mean 'sage_schedulers'?\n  help: hooks: sage_backends, "),
        (Unmarked(), "sage_schedulers is not marked with @hookimpl\n  help: from sage_core import hookimpl"),
        (
            WithDefault(),
            "sage_on_run_finished: argument 'run' has a default value\n"
            "  help: pluggy does not pass arguments that have a default; remove it",
        ),
        (ExtraArgument(), "sage_on_run_finished has no argument 'host'\n  help: it may take: run"),
        (Asynchronous(), "sage_schedulers is async\n  help: hooks are plain functions; hand slow work to a queue"),
        (Wrapping(), "sage_schedulers is a wrapper\n  help: hooks offer names or observe; none can be wrapped"),
        (Listing(), "sage_schedulers returns list, not a mapping\n  help: return {'name': 'module:attribute'}"),
        (Exploding(), "RuntimeError: boom"),
        (Leaving(), "SystemExit: 3"),
        (Offers(fifo=Priority), "sage_schedulers: 'fifo' must map to 'module:attribute', not <class "),
        (Offers(fifo="module.Policy"), "sage_schedulers: 'fifo' must map to 'module:attribute', not 'module.Policy'"),
        (Offers(fifo="module:"), "sage_schedulers: 'fifo' must map to 'module:attribute', not 'module:'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_pluggy_would_pass_in_silence_is_refused_with_its_reason(plugin: object, reason: str) -> None:
    assert quarantined(plugin).startswith(reason)


def test_nothing_of_a_quarantined_plugin_stays() -> None:
    class Half:
        @hookimpl
        def sage_node_selectors(self) -> Mapping[str, str]:
            return {"mine": f"{HERE}:Priority"}

        @hookimpl
        def sage_schedulers(self) -> list[str]:
            return []

        @hookimpl
        def sage_on_run_finished(self, run: Run) -> None:
            raise AssertionError("a quarantined plugin hears of nothing")

    host = default_host({"half": Half()})
    assert "mine" not in host.selectors
    host.hook.sage_on_run_finished(run=RUN)
    assert [str(problem) for problem in host.check()] == [
        "plugin 'half': sage_schedulers returns list, not a mapping\n  help: return {'name': 'module:attribute'}"
    ]


# ---------------------------------------------------------------- entries against their contracts


def whatever() -> None:
    """No operator, policy, selector, backend or command."""


class Everything:
    @hookimpl
    def sage_operators(self) -> Mapping[str, str]:
        return {"text.a": f"{HERE}:whatever", "text.b": f"{HERE}:misnamed"}

    @hookimpl
    def sage_schedulers(self) -> Mapping[str, str]:
        return {"policy": f"{HERE}:whatever", "made": f"{HERE}:INSTANCE"}

    @hookimpl
    def sage_node_selectors(self) -> Mapping[str, str]:
        return {"chooser": f"{HERE}:Priority"}

    @hookimpl
    def sage_backends(self) -> Mapping[str, str]:
        return {"engine": f"{HERE}:Priority"}

    @hookimpl
    def sage_commands(self) -> Mapping[str, str]:
        return {"do": f"{HERE}:whatever"}


INSTANCE = Priority()


def misnamed() -> None:
    """Marked with another name than it is offered under."""


def test_every_entry_is_held_against_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = importlib.import_module("sage_core.common.operators")
    monkeypatch.setattr(misnamed, operators.MARK, operators.OperatorInfo(name="text.other"), raising=False)
    problems = [str(problem) for problem in Host({"wrong": Everything()}).check()]
    assert problems == [
        "plugin 'wrong': operator 'text.a' is not marked with @operator",
        "plugin 'wrong': operator 'text.b' is marked @operator('text.other'): the two names must be the same",
        "plugin 'wrong': scheduler 'made' is not a class that is a Ordering or Scheduler",
        "plugin 'wrong': scheduler 'policy' is not a class that is a Ordering or Scheduler",
        "plugin 'wrong': node selector 'chooser' is not a class that is a NodeFilter or NodeScorer or NodePicker",
        "plugin 'wrong': backend 'engine' is not a class that is a Backend: no identify and no open",
        "plugin 'wrong': command 'do' is no click command",
    ]
