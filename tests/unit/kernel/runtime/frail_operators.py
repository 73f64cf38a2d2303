"""Operators that fail, stall or break their word, for workflows that tests run for real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

from sage_core import Batch, Dataset, RowError, operator
from tests.unit.kernel.runtime.flow_records import Draft, Word, note


@operator("f.fragile", returns="text")
def fragile(text: str, *, bad: str = "bad", log: str = "") -> str:
    note(log, text)
    if bad in text:
        raise ValueError(f"cannot read {text!r}")
    return text


@operator("f.fragile_split")
def fragile_split(text: str) -> Iterator[Word]:
    for at, word in enumerate(text.split()):
        if word == "bad":
            raise ValueError("half way")
        yield Word(word, at)


@operator("f.fragile_many", returns="text")
def fragile_many(text: Batch[str], *, log: str = "") -> Batch[str]:
    note(log, "|".join(text))
    if any("bad" in one for one in text):
        raise ValueError("a bad text")
    return text


@operator("f.fragile_impure", returns="text", pure=False)
def fragile_impure(text: Batch[str], *, log: str = "") -> Batch[str]:
    return fragile_many(text, log=log)


@operator("f.reports", returns="text")
def reports(text: Batch[str]) -> Batch[str]:
    return Batch(RowError("it is bad") if "bad" in one else one for one in text)  # type: ignore[misc]


@operator("f.shorter", returns="text")
def shorter(text: Batch[str]) -> Batch[str]:
    return Batch(text[:-1])


@operator("f.other_keys")
def other_keys(text: str) -> Draft:
    return {"state": text, "finished": True}  # type: ignore[typeddict-item,typeddict-unknown-key]


@operator("f.late", returns="text")
async def late(text: str, *, log: str = "") -> str:
    note(log, text)
    if text == "slow":
        await asyncio.sleep(30)
    return text


@operator("f.late_sync", returns="text")
def late_sync(text: str, *, log: str = "") -> str:
    note(log, text)
    if text == "slow":
        threading.Event().wait(0.4)
    return text


@operator("f.stuck", returns="text")
def stuck(text: str) -> str:
    threading.Event().wait()
    return text


@operator("f.fragile_all", returns="text")
def fragile_all(text: Dataset[str]) -> str:
    return ",".join(fragile(one) for one in text)


@operator("f.gate", returns="n")
def gate(n: int, *, path: str) -> int:
    if not Path(path).exists():
        raise ValueError("the gate is shut")
    return n


@operator("f.flaky", returns="text")
def flaky(text: str, *, log: str, times: int = 1, kind: str = "timeout") -> str:
    note(log, text)
    if Path(log).read_text(encoding="utf-8").splitlines().count(text) <= times and text.startswith("flaky"):
        raise (TimeoutError if kind == "timeout" else ValueError)(f"{text} is not ready")
    return text
