"""A function or method taken apart: its parameters with evaluated annotations, its return, and its colour."""

from __future__ import annotations

import builtins
import inspect
import re
import typing
from typing import Any, Literal, NamedTuple

from sage_core.common.errors import BadSignature, UnsupportedType
from sage_core.kernel.dataflow import types
from sage_core.kernel.dataflow.graph import Type

#: Stands for a default value or annotation that is not there.
ABSENT = inspect.Parameter.empty

#: How a port's rows arrive.
Many = Literal["one", "batch", "dataset"]
Colour = Literal["plain", "generator", "coroutine", "async generator"]


class Parameter(NamedTuple):
    """One parameter; `keyword` means keyword-only."""

    name: str
    annotation: Any
    default: Any
    keyword: bool


class Call(NamedTuple):
    """What can be said about calling a function or method."""

    #: Empty for a function, else the method's name.
    method: str
    parameters: tuple[Parameter, ...]
    returns: Any
    colour: Colour

    @property
    def ports(self) -> list[Parameter]:
        """The positional parameters."""
        return [parameter for parameter in self.parameters if not parameter.keyword]

    @property
    def options(self) -> list[Parameter]:
        """The keyword-only parameters, without ``ctx``."""
        return [parameter for parameter in self.parameters if parameter.keyword and parameter.name != "ctx"]

    @property
    def wants_context(self) -> bool:
        """Whether it has a keyword-only ``ctx``."""
        return any(parameter.keyword and parameter.name == "ctx" for parameter in self.parameters)

    @property
    def is_async(self) -> bool:
        """Whether its result must be awaited or iterated asynchronously."""
        return self.colour in ("coroutine", "async generator")

    def named(self, parameter: str) -> str:
        """The parameter as a message names it."""
        return f"parameter {parameter!r} of {self.method}" if self.method else f"parameter {parameter!r}"


def take_apart(operator: str, function: Any, method: str = "") -> Call:
    """Read a function, or a method without its ``self``; raises `BadSignature`."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        raise BadSignature(operator, f"{function!r} is no Python function", "wrap it in a `def` with annotations")
    count, keywords = code.co_argcount, code.co_kwonlyargcount
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        stars = _stars(code)
        raise BadSignature(
            operator,
            f"{stars}: ports and options have names",
            "write each port as a positional parameter and each option after a `*`",
        )
    hints = _hints(operator, function, method)
    defaults = function.__defaults__ or ()
    given = dict(zip(code.co_varnames[count - len(defaults) : count], defaults, strict=True))
    given |= function.__kwdefaults__ or {}
    first = 1 if method else 0
    parameters = tuple(
        Parameter(name, hints.get(name, ABSENT), given.get(name, ABSENT), place >= count)
        for place, name in enumerate(code.co_varnames[: count + keywords])
        if place >= first
    )
    call = Call(method, parameters, hints.get("return", ABSENT), _colour(code.co_flags))
    for name, annotation, _, keyword in parameters:
        if name == "ctx" and not keyword:
            raise BadSignature(operator, "'ctx' is positional, so it would be a port", "write `*, ctx: Context`")
        if annotation is ABSENT:
            raise BadSignature(operator, f"{call.named(name)} has no annotation", f"write `{name}: T`")
    return call


def _colour(flags: int) -> Colour:
    if flags & inspect.CO_ASYNC_GENERATOR:
        return "async generator"
    if flags & inspect.CO_COROUTINE:
        return "coroutine"
    return "generator" if flags & inspect.CO_GENERATOR else "plain"


def _stars(code: Any) -> str:
    place = code.co_argcount + code.co_kwonlyargcount
    found = []
    if code.co_flags & inspect.CO_VARARGS:
        found.append(f"*{code.co_varnames[place]}")
        place += 1
    if code.co_flags & inspect.CO_VARKEYWORDS:
        found.append(f"**{code.co_varnames[place]}")
    return f"{' and '.join(found)} cannot be wired"


def _hints(operator: str, function: Any, method: str) -> dict[str, Any]:
    try:
        return _plain_hints(function) or typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        where, problem, help = _guilty(function, method)
        raise BadSignature(operator, f"{where}: {problem or error}", help) from error


def _plain_hints(function: Any) -> dict[str, Any] | None:
    """What `get_type_hints` gives, in a third of the time; None where it is needed for quotes, generics or errors."""
    names = function.__globals__
    found = {}
    for name, annotation in function.__annotations__.items():
        if not isinstance(annotation, str):
            if not isinstance(annotation, type | None):
                return None
            value = annotation
        elif annotation in names or annotation in vars(builtins):
            value = names[annotation] if annotation in names else vars(builtins)[annotation]
        elif '"' in annotation or "'" in annotation:
            return None
        else:
            try:
                value = eval(annotation, names)
            except Exception:  # noqa: BLE001 - get_type_hints raises it again, for the message
                return None
        found[name] = type(None) if value is None else value
    return found


def _guilty(function: Any, method: str) -> tuple[str, str, str]:
    # get_type_hints does not say which annotation failed: try them one at a time.
    for name, annotation in function.__annotations__.items():
        lone = type("lone", (), {"__annotations__": {name: annotation}, "__module__": function.__module__})
        try:
            typing.get_type_hints(lone, globalns=function.__globals__, include_extras=True)
        except NameError as error:
            unknown = error.name or next(iter(re.findall(r"'(\w+)'", str(error))), "?")
            return (
                _place(name, method),
                f"the name {unknown!r} in `{annotation}` is unknown at run time",
                f"import or define {unknown} at the top of {function.__module__}, outside `if TYPE_CHECKING:`",
            )
        except Exception as error:  # noqa: BLE001 - evaluating an annotation may raise anything
            return _place(name, method), f"`{annotation}` cannot be evaluated: {error}", "write a valid annotation"
    return "annotations", "", ""


def _place(name: str, method: str) -> str:
    of = f" of {method}" if method else ""
    return f"return annotation{of}" if name == "return" else f"parameter {name!r}{of}"


def typed(operator: str, where: str, annotation: Any) -> Type:
    """Read an annotation; what it cannot mean becomes the operator's error."""
    try:
        return types.of(annotation)
    except UnsupportedType as error:
        raise _unsupported(operator, where, error) from error


def typed_fields(operator: str, where: str, record: Any) -> dict[str, Type]:
    """Read a record's fields; what they cannot mean becomes the operator's error."""
    try:
        return types.fields_of(record)
    except UnsupportedType as error:
        raise _unsupported(operator, where, error) from error


def _unsupported(operator: str, where: str, error: UnsupportedType) -> BadSignature:
    annotation, problem, help = error.args
    return BadSignature(operator, f"{where}: {annotation}: {problem}", help)
