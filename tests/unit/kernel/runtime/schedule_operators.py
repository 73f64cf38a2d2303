"""Operators and a trigger kind for tests of deployments and schedules: what is due is written into the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import tzinfo

from sage_core import hookimpl, operator
from sage_core.common.cron import parse_cron

MINUTE = 60_000

WORKFLOW = """
sage = 1
name = "report"

[params]
word = { type = "string", default = "hello" }
file = { type = "path", required = false }

[steps.words]
use = "s.words"
with = { word = "${params.word}" }

[steps.upper]
use = "s.upper"
in = { word = "words.word" }
"""

CRON = """
[[triggers.cron]]
schedule = "*/5 * * * *"
"""


@operator("s.words", returns="word", pure=False)
def words(*, word: str) -> Iterator[str]:
    yield word


@operator("s.upper", returns="upper")
def upper(word: str) -> str:
    return word.upper()


class Multiples:
    """Fires every step of the minute field, from its start: a cron that knows no hours, days and zones."""

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        first, second, *_ = sorted(parse_cron(spec.get("schedule"))[0])
        phase, period = first * MINUTE, (second - first) * MINUTE
        return ((after - phase) // period + 1) * period + phase


class Operators:
    @hookimpl
    def sage_operators(self) -> Mapping[str, str]:
        return {f"s.{name}": f"{__name__}:{name}" for name in ("words", "upper")}


class Triggers:
    @hookimpl
    def sage_triggers(self) -> Mapping[str, str]:
        return {"cron": f"{__name__}:Multiples"}


#: What a test gives `Flows`.
PLUGINS: Mapping[str, object] = {"operators": Operators(), "triggers": Triggers()}
