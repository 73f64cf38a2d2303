"""References to columns: ``step``, ``step.column.field``, ``params.x``, with ``?`` where absent becomes null."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow.graph import Ref

#: Where a step's name would be, the run's parameters.
PARAMS = "params"

_REF = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\??)", re.ASCII)
_TEMPLATE = re.compile(r"\$\{\s*(params)\.(\w+)\s*\}")


def parse(text: str) -> Ref:
    """Read one reference; the column is empty where only a step is named. Raises `BadValue`."""
    match = _REF.fullmatch(text)
    if match is None:
        template = _TEMPLATE.fullmatch(text.strip())
        if template:
            raise BadValue(
                f"{text!r} is a template, and a port takes a reference", f'write "{template[1]}.{template[2]}"'
            )
        raise BadValue(f"{text!r} is not a reference", f"for the text itself write {{ value = {quoted(text)} }}")
    return of(match[1], bool(match[2]))


def of(dotted: str, optional: bool = False) -> Ref:
    """The reference that a dotted text is."""
    step, _, rest = dotted.partition(".")
    column, _, fields = rest.partition(".")
    return Ref(step=step, column=column, fields=tuple(fields.split(".")) if fields else (), optional=optional)


def show(ref: Ref) -> str:
    """The reference as text."""
    return ".".join(part for part in (ref.step, ref.column, *ref.fields) if part) + ("?" if ref.optional else "")


def quoted(text: str) -> str:
    """A text as TOML, shortened when long."""
    shown = text if len(text) <= 40 else text[:39] + "…"
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def literal(value: object) -> str:
    """A value as TOML, as far as a help text needs it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {literal(item)}" for key, item in value.items()) + " }"
    return str(value)
