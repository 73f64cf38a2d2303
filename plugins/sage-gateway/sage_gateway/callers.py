"""From headers, key and class to a `Caller`: whom a request is for, and what they ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from sage_core import BadValue, Caller, ConfigError, ServiceClass
from sage_core.serving import Config, seconds
from sage_gateway.accounts import Account
from sage_gateway.errors import ApiError

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
#: What a header is called → the field it fills; llm-d's names are understood beside our own.
_NAMES = {
    b"x-sage-slo-ttft-ms": "ttft",
    b"x-llm-d-slo-ttft-ms": "ttft",
    b"x-sage-slo-tpot-ms": "tpot",
    b"x-llm-d-slo-tpot-ms": "tpot",
    b"x-sage-slo-e2e-ms": "end_to_end",
    b"x-llm-d-slo-e2e-ms": "end_to_end",
    b"x-sage-class": "class",
    b"x-llm-d-inference-objective": "objective",
    b"x-sage-priority": "priority",
    b"x-sage-tenant": "tenant",
    b"x-llm-d-inference-fairness-id": "tenant",
    b"x-sage-run": "run",
    b"x-sage-step": "step",
    b"x-sage-worker": "worker",
}
CLASSES = get_args(ServiceClass)
#: Letters of a name, where longer ones are cut, and the largest priority either way.
LONGEST_NAME, LARGEST_PRIORITY = 128, 1_000


class ClassDefaults:
    """``[classes.NAME]`` of sage.toml, in nanoseconds."""

    def __init__(self, config: Config) -> None:
        self._of: dict[str, dict[str, int | None]] = {}
        for name, table in config.classes.items():
            try:
                self._of[name] = {
                    key: round(seconds(text) * SECOND) if text else None
                    for key, text in (("ttft", table.ttft), ("tpot", table.tpot), ("end_to_end", table.end_to_end))
                }
            except BadValue as error:
                raise ConfigError(f"[classes.{name}]", error.problem, error.help) from None

    def of(self, name: str, key: str) -> int | None:
        """What a class asks for, or None."""
        return self._of.get(name, {}).get(key)


def caller_of(
    headers: list[tuple[bytes, bytes]], account: Account, defaults: ClassDefaults, *, route: str, id: str
) -> Caller:
    """The caller of a request; a header goes before the key, the key before the class.

    Run, step and worker are what the caller says: names in the decision record, by which nothing is granted.
    """
    given = {_NAMES[name]: value for name, value in headers if name in _NAMES}
    service_class = _class(given, account)
    found: dict[str, int | None] = {}
    for key, own in (("ttft", account.ttft), ("tpot", account.tpot), ("end_to_end", account.end_to_end)):
        if key in given:
            found[key] = _milliseconds(given, key)
        else:
            found[key] = own if own is not None else defaults.of(service_class, key)
    return Caller(
        tenant=(_name(given, "tenant") if account.trusted else "") or account.tenant,
        run=_name(given, "run"),
        step=_name(given, "step"),
        service_class=service_class,
        remaining=found["end_to_end"],
        ttft=found["ttft"],
        tpot=found["tpot"],
        priority=_priority(given, account),
        route=route,
        worker=_name(given, "worker") or id,
    )


def _name(given: Mapping[str, bytes], key: str) -> str:
    return str(given.get(key, b""), "utf-8", "replace")[:LONGEST_NAME]


def _class(given: Mapping[str, bytes], account: Account) -> ServiceClass:
    if "class" in given:
        name = str(given["class"], "latin-1")
        if name not in CLASSES:
            raise ApiError(400, f"x-sage-class {name!r} is none of {', '.join(CLASSES)}", param="x-sage-class")
        return _behind(cast(ServiceClass, name), account)
    # llm-d's objectives have names of the operator's own: one that is no class says nothing here.
    objective = str(given.get("objective", b""), "latin-1")
    return _behind(cast(ServiceClass, objective), account) if objective in CLASSES else account.service_class


def _behind(asked: ServiceClass, account: Account) -> ServiceClass:
    # A key's class is what its holder was given: they may only step back behind it.
    return max(asked, account.service_class, key=CLASSES.index) if account.bounded else asked


def _milliseconds(given: Mapping[str, bytes], key: str) -> int:
    header = f"x-sage-slo-{'e2e' if key == 'end_to_end' else key}-ms"
    try:
        value = float(given[key])
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1e12:
        raise ApiError(400, f"{header} is a number of milliseconds above 0", param=header)
    return round(value * MILLISECOND)


def _priority(given: Mapping[str, bytes], account: Account) -> int:
    if "priority" not in given:
        return account.priority
    try:
        value = int(given["priority"])
    except ValueError:
        value = LARGEST_PRIORITY + 1
    if abs(value) > LARGEST_PRIORITY:
        message = f"x-sage-priority is a whole number from -{LARGEST_PRIORITY} to {LARGEST_PRIORITY}"
        raise ApiError(400, message, param="x-sage-priority")
    # A key's priority is what its holder was given: they may only step back behind it.
    return value if account.trusted or account.admin else min(value, account.priority)
