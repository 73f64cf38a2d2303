"""A function or method taken apart: its parameters with evaluated annotations, its return, and its colour."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from sage_core.common.errors import BadSignature, UnsupportedType

T = TypeVar("T")

#: Stands for a default value or annotation that is not there.
ABSENT = inspect.Parameter.empty

#: How a port's rows arrive.
Many = Literal["one", "batch", "dataset"]
Colour = Literal["plain", "generator", "coroutine", "async generator"]


class Call(NamedTuple):
    """What can be said about calling a function or method."""

    operator: str
    #: Empty for a function, else the method's name.
    method: str
    parameters: tuple[inspect.Parameter, ...]
    returns: Any
    colour: Colour

    @property
    def ports(self) -> list[inspect.Parameter]:
        """The positional parameters."""
        return [parameter for parameter in self.parameters if parameter.kind is not parameter.KEYWORD_ONLY]

    @property
    def options(self) -> list[inspect.Parameter]:
        """The keyword-only parameters, without ``ctx``."""
        return [one for one in self.parameters if one.kind is one.KEYWORD_ONLY and one.name != "ctx"]

    @property
    def wants_context(self) -> bool:
        """Whether it has a ``ctx``, which is keyword-only."""
        return any(parameter.name == "ctx" for parameter in self.parameters)

    @property
    def is_async(self) -> bool:
        """Whether its result must be awaited or iterated asynchronously."""
        return self.colour in ("coroutine", "async generator")

    def named(self, parameter: str) -> str:
        """The parameter, or ``return``, as a message names it."""
        called = "return annotation" if parameter == "return" else f"parameter {parameter!r}"
        return f"{called} of {self.method}" if self.method else called

    def bad(self, problem: str, help: str) -> BadSignature:
        """The error of the operator that is called so."""
        return BadSignature(self.operator, problem, help)

    def read(self, reader: Callable[[Any], T], where: str, annotation: Any) -> T:
        """What `reader` makes of an annotation; what it cannot mean becomes the operator's error."""
        try:
            return reader(annotation)
        except UnsupportedType as error:
            shown, problem, help = error.args
            raise self.bad(f"{where}: {shown}: {problem}", help) from error


def take_apart(operator: str, function: Any, method: str = "") -> Call:
    """Read a function, or a method without its ``self``; raises `BadSignature`."""
    function = inspect.unwrap(function)
    if not inspect.isfunction(function):
        raise BadSignature(operator, f"{function!r} is no Python function", "wrap it in a `def` with annotations")
    given = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    call = Call(operator, method, (), ABSENT, _colour(function))
    if stars := [
        str(one.replace(annotation=ABSENT)) for one in given if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]:
        raise call.bad(
            f"{' and '.join(stars)} cannot be wired: ports and options have names",
            "write each port as a positional parameter and each option after a `*`",
        )
    hints = _hints(call, function)
    for one in given:
        if one.name == "ctx" and one.kind is not one.KEYWORD_ONLY:
            raise call.bad("'ctx' is positional, so it would be a port", "write `*, ctx: Context`")
        if one.name not in hints:
            raise call.bad(f"{call.named(one.name)} has no annotation", f"write `{one.name}: T`")
    parameters = tuple(one.replace(annotation=hints[one.name]) for one in given)
    return call._replace(parameters=parameters, returns=hints.get("return", ABSENT))


def _colour(function: Any) -> Colour:
    if inspect.isasyncgenfunction(function):
        return "async generator"
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(function) else "plain"


def _hints(call: Call, function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        # get_type_hints does not say which annotation failed: try them one at a time.
        for name, annotation in function.__annotations__.items():
            lone = type("lone", (), {"__annotations__": {name: annotation}, "__module__": function.__module__})
            try:
                typing.get_type_hints(lone, globalns=function.__globals__, include_extras=True)
            except NameError as unknown:
                lost = unknown.name or next(iter(re.findall(r"'(\w+)'", str(unknown))), "?")
                raise call.bad(
                    f"{call.named(name)}: the name {lost!r} in `{annotation}` is unknown at run time",
                    f"import or define {lost} at the top of {function.__module__}, outside `if TYPE_CHECKING:`",
                ) from error
            except Exception as wrong:  # noqa: BLE001 - evaluating an annotation may raise anything
                problem = f"{call.named(name)}: `{annotation}` cannot be evaluated: {wrong}"
                raise call.bad(problem, "write a valid annotation") from error
        raise call.bad(f"annotations: {error}", "") from error
