"""Contract suite for operators: subclass it, set ``operator`` and give at least one example of a call."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from sage_core.common.operators import MARK, Batch, OperatorInfo
from sage_core.common.records import Record
from sage_core.kernel.dataflow import signature
from sage_core.testing.subject import subject


class Example(Record):
    """A call of an operator and what it gives: ports and options by name, a list where the operator iterates."""

    inputs: Mapping[str, Any]
    result: Any


class OperatorContract:
    """What every operator keeps: a name, a signature SAGE can read, and calls that work without SAGE.

    Set ``operator``, and ``examples``: at least one. A class is made with the inputs its ``__init__`` names, a fold is
    given those of ``add`` once and then those of ``finish``.
    """

    operator: Callable[..., object]
    examples: Sequence[Example] = ()

    def _operator(self) -> Any:
        return subject(self, "operator")

    def test_it_is_marked_with_a_dotted_name(self) -> None:
        info = getattr(self._operator(), MARK, None)
        assert isinstance(info, OperatorInfo), "the operator is not marked with @operator"
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", info.name), (
            f"{info.name!r} is not namespace.name in lower case"
        )

    def test_its_signature_can_be_read(self) -> None:
        read = signature.of(self._operator())
        assert read.operator == getattr(self._operator(), MARK).name

    def test_its_examples_hold(self) -> None:
        assert self.examples, "give at least one Example"
        for example in self.examples:
            found = self._call(example)
            assert found == example.result, f"{dict(example.inputs)} gives {found!r}, not {example.result!r}"

    def test_a_pure_operator_repeats_itself(self) -> None:
        if getattr(self._operator(), MARK).pure:
            for example in self.examples:
                assert self._call(example) == self._call(example), f"{dict(example.inputs)} gives two results"

    def test_a_batch_keeps_its_length(self) -> None:
        for example in self.examples:
            batches = [value for value in example.inputs.values() if isinstance(value, Batch)]
            if batches:
                found = self._call(example)
                assert len(found) == len(batches[0]), f"{len(batches[0])} rows in, {len(found)} out"

    def _call(self, example: Example) -> Any:
        target = self._operator()
        return asyncio.run(_result(target, example.inputs))


async def _result(target: Any, inputs: Mapping[str, Any]) -> Any:
    if isinstance(target, type):
        options = {name for name in inspect.signature(target).parameters if name in inputs}
        made = target(**{name: inputs[name] for name in options})
        ports = {name: value for name, value in inputs.items() if name not in options}
        if not hasattr(made, "add"):
            return await _settled(made(**ports))
        # A fold that returns an artifact takes its directory there.
        last = {name: ports.pop(name) for name in inspect.signature(made.finish).parameters if name in ports}
        await _settled(made.add(**ports))
        return await _settled(made.finish(**last))
    return await _settled(target(**inputs))


async def _settled(value: Any) -> Any:
    if inspect.isawaitable(value):
        value = await value
    if isinstance(value, AsyncIterator):
        return [item async for item in value]
    return list(value) if isinstance(value, Iterator) else value
