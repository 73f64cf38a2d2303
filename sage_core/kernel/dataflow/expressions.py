"""Conditions (``when``, ``until``) and templates (``${params.x}``): looked up and compared, never executed.

A condition is a small subset of Python's expressions, interpreted over its syntax tree: literals, references,
comparison, ``in``, ``and``/``or``/``not``, arithmetic and ``len(x)``. No attribute is read from any object.
"""

from __future__ import annotations

import ast
import keyword
import operator
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sage_core.common.errors import BadValue, suggest
from sage_core.common.records import Record
from sage_core.kernel.dataflow import references
from sage_core.kernel.dataflow.graph import Ref

#: Longest condition, in characters and in syntax nodes; deepest nesting.
_LENGTH, _NODES, _DEPTH = 1_000, 200, 20
#: Longest text or list that an operation may make.
_RESULT = 100_000

_ALLOWED = "literals, references, == != < <= > >=, in, and, or, not, + - * / // %, and len(x)"
_WORDS = {"true": True, "false": False, "null": None, "none": None}

_BINARY: Mapping[type[ast.operator], tuple[str, Callable[[Any, Any], object]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}
_COMPARE: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda item, items: item in items),
    ast.NotIn: ("not in", lambda item, items: item not in items),
}
_FORBIDDEN = {
    ast.Call: "calls are not part of a condition",
    ast.Pow: "there is no power operator",
    ast.Lambda: "functions are not part of a condition",
    ast.Subscript: "items cannot be taken with [ ]",
    ast.IfExp: "there is no if … else",
    ast.JoinedStr: "there are no f-strings",
    ast.NamedExpr: "a condition cannot assign",
    ast.Is: "compare with == instead of `is`",
    ast.IsNot: "compare with != instead of `is not`",
    ast.Dict: "a condition holds no tables",
    ast.Set: "write a list instead of a set",
}


class Expression:
    """A compiled condition."""

    def __init__(self, text: str, tree: ast.expr, refs: Mapping[str, Ref]) -> None:
        self.text = text
        #: The references it reads, as written, in order, without repetition; a bare name has an empty column.
        self.refs: tuple[Ref, ...] = tuple(refs.values())
        #: Their texts, parallel to `refs`: the keys that `evaluate` looks up.
        self.names: tuple[str, ...] = tuple(refs)
        #: Those that cannot be null where the condition holds: ``x != null``, alone or joined by ``and``.
        self.present: frozenset[str] = frozenset(_present(tree))
        self._tree = tree

    def evaluate(self, values: Mapping[str, object]) -> object:
        """Compute it over values by dotted reference text; raises `BadValue` where types do not go together."""
        return self._value(self._tree, values)

    def _value(self, node: ast.expr, values: Mapping[str, object]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                text = _dotted(node)
                return _WORDS[text] if text in _WORDS else values[text]
            case ast.List() | ast.Tuple():
                return [self._value(item, values) for item in node.elts]
            case ast.BoolOp():
                stops = isinstance(node.op, ast.Or)
                result: object = None
                for part in node.values:
                    result = self._value(part, values)
                    if bool(result) is stops:
                        break
                return result
            case ast.UnaryOp():
                return self._unary(node, values)
            case ast.BinOp():
                return self._binary(node, values)
            case ast.Compare():
                return self._compare(node, values)
            case ast.Call():
                return self._apply("len", len, self._value(node.args[0], values))
            case _:
                raise AssertionError(f"{type(node).__name__} passed compile_when")

    def _unary(self, node: ast.UnaryOp, values: Mapping[str, object]) -> object:
        value = self._value(node.operand, values)
        if isinstance(node.op, ast.Not):
            return not value
        return self._apply("-", operator.neg, value) if isinstance(node.op, ast.USub) else value

    def _binary(self, node: ast.BinOp, values: Mapping[str, object]) -> object:
        sign, function = _BINARY[type(node.op)]
        left, right = self._value(node.left, values), self._value(node.right, values)
        if isinstance(node.op, ast.Mod) and isinstance(left, (str, bytes)):
            raise BadValue(f"{self.text!r}: % computes a remainder; it does not format texts")
        if isinstance(node.op, ast.Mult):
            for items, times in ((left, right), (right, left)):
                if isinstance(items, Sequence) and isinstance(times, int) and len(items) * times > _RESULT:
                    raise BadValue(f"{self.text!r}: * would make more than {_RESULT:,} items")
        return self._apply(sign, function, left, right)

    def _compare(self, node: ast.Compare, values: Mapping[str, object]) -> bool:
        left = self._value(node.left, values)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(part, values)
            if not self._apply(*_COMPARE[type(op)], left, right):
                return False
            left = right
        return True

    def _apply(self, sign: str, function: Callable[..., object], *args: object) -> object:
        try:
            return function(*args)
        except (TypeError, ValueError, ArithmeticError) as error:
            kinds = " and ".join("null" if arg is None else type(arg).__name__ for arg in args)
            reason = str(error) if isinstance(error, ArithmeticError) else f"{sign} does not apply to {kinds}"
            raise BadValue(f"{self.text!r}: {reason}") from None


def compile_when(text: str) -> Expression:
    """Compile a condition; raises `BadValue` for anything outside the subset."""
    if not isinstance(text, str) or not text.strip():
        raise BadValue('a condition is a text such as "chunk.size > 100 and params.deep"')
    if len(text) > _LENGTH:
        raise BadValue(f"the condition is longer than {_LENGTH:,} characters", "let an operator compute it")
    try:
        with warnings.catch_warnings():
            # Python warns about code such as "\\d" or `1 is 1`; the checks below say what is wrong, if anything.
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise BadValue(f"{text!r} is not a condition: {reason}", _syntax_help(text)) from None
    refs: dict[str, Ref] = {}
    budget = [_NODES]
    _admit(text, tree, refs, budget, 0)
    return Expression(text, tree, refs)


def _admit(text: str, node: ast.expr, refs: dict[str, Ref], budget: list[int], depth: int) -> None:
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEPTH:
        raise BadValue(f"{text[:40]!r}… is too large a condition", "let an operator compute it")
    parts: Sequence[ast.expr] = ()
    ops: Sequence[ast.AST] = ()
    match node:
        case ast.Constant(value=str() | int() | float() | None):
            pass
        case ast.Name() | ast.Attribute():
            dotted = _dotted(node)
            if not dotted:
                raise BadValue(f"{text!r}: only references such as step.column have a dot", f"allowed: {_ALLOWED}")
            if dotted not in _WORDS:
                refs.setdefault(dotted, references.of(dotted))
        case ast.List() | ast.Tuple():
            parts = node.elts
        case ast.BoolOp():
            parts = node.values
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd()):
            parts = [node.operand]
        case ast.BinOp():
            parts, ops = [node.left, node.right], [node.op]
        case ast.Compare():
            parts, ops = [node.left, *node.comparators], node.ops
        case ast.Call(func=ast.Name(id="len"), args=[_], keywords=[]):
            parts = node.args
        case _:
            raise _forbidden(text, node)
    for op in ops:
        if type(op) not in _BINARY and type(op) not in _COMPARE:
            raise _forbidden(text, op)
    for part in parts:
        _admit(text, part, refs, budget, depth + 1)


def _present(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.BoolOp(op=ast.And()):
            for part in node.values:
                yield from _present(part)
        case ast.Compare(left=left, ops=[ast.NotEq()], comparators=[right]):
            for one, two in ((left, right), (right, left)):
                name = _dotted(two)
                if name and name not in _WORDS and _is_null(one):
                    yield name


def _is_null(node: ast.expr) -> bool:
    return node.value is None if isinstance(node, ast.Constant) else _dotted(node) in ("null", "none")


def _forbidden(text: str, node: ast.AST) -> BadValue:
    reason = _FORBIDDEN.get(type(node), "this is not part of a condition")
    return BadValue(f"{text!r}: {reason}", f"allowed: {_ALLOWED}")


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _syntax_help(text: str) -> str:
    if "&&" in text or "||" in text or re.match(r"\s*!", text):
        return "write and, or, not"
    if re.search(r"[^=!<>]=[^=]", text):
        return "compare with =="
    if "${" in text:
        return "a condition takes references as they are: params.x, not ${params.x}"
    if "?" in text:
        return "a condition runs only where all it reads is present; leave the ? out"
    return f"allowed: {_ALLOWED}"


# ---------------------------------------------------------------- templates

NAMESPACES = ("params", "env", "secret", "run")

_TEMPLATE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}|\$\{")
_NAME = re.compile(r"\s*([A-Za-z_]\w*)\.([A-Za-z_][\w-]*)\s*", re.ASCII)


class Secret(Record):
    """A value that is made at the moment of use and never written down: its text with ``${secret.X}`` left in place."""

    template: str

    def reveal(self, environ: Mapping[str, str] | None = None) -> str:
        """The value, from environment variables; raises `BadValue` naming a missing one, never a value."""
        found = fill(self.template, {"secret": os.environ if environ is None else environ})
        return str(found)


def template_refs(value: object) -> tuple[tuple[str, str], ...]:
    """What templates anywhere inside a value refer to: (namespace, name); raises `BadValue` on a malformed one."""
    found: dict[tuple[str, str], None] = {}
    for text in _texts(value):
        for match in _TEMPLATE.finditer(text):
            if not match[1]:
                found[_parse(match)] = None
    return tuple(found)


def whole_ref(value: object) -> tuple[str, str] | None:
    """The reference of a value that is exactly one template, and so keeps the type of what it refers to."""
    match = _TEMPLATE.fullmatch(value) if isinstance(value, str) else None
    return _parse(match) if match and not match[1] else None


def fill(value: Any, namespaces: Mapping[str, Mapping[str, Any]]) -> Any:
    """Resolve templates anywhere inside a value; raises `BadValue` for a name that is not there.

    A secret becomes a `Secret` placeholder unless `namespaces` has ``secret``.
    """
    if isinstance(value, str):
        return _fill_text(value, namespaces)
    if isinstance(value, dict):
        return {key: fill(entry, namespaces) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(entry, namespaces) for entry in value]
    return value


def escape(text: str) -> str:
    """The template that fills to `text`."""
    return text.replace("${", "$${")


def reveal(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """Replace every `Secret` inside a value by what it stands for; only for the call that uses it."""
    if isinstance(value, Secret):
        return value.reveal(environ)
    if isinstance(value, dict):
        return {key: reveal(entry, environ) for key, entry in value.items()}
    return [reveal(entry, environ) for entry in value] if isinstance(value, list) else value


def _fill_text(text: str, namespaces: Mapping[str, Mapping[str, Any]]) -> Any:
    if (only := whole_ref(text)) is not None:
        return _lookup(*only, namespaces)
    parts: list[str | Secret] = []
    at = 0
    for match in _TEMPLATE.finditer(text):
        parts.append(text[at : match.start()])
        found = "${" if match[1] else _lookup(*_parse(match), namespaces)
        parts.append(found if isinstance(found, Secret) else _text(found, match[0]))
        at = match.end()
    parts.append(text[at:])
    if any(isinstance(part, Secret) for part in parts):
        return Secret(template="".join(part.template if isinstance(part, Secret) else escape(part) for part in parts))
    return "".join(str(part) for part in parts)


def _lookup(space: str, name: str, namespaces: Mapping[str, Mapping[str, Any]]) -> Any:
    if space == "secret" and space not in namespaces:
        return Secret(template=f"${{secret.{name}}}")
    known = namespaces.get(space, {})
    if name in known:
        return known[name]
    if space in ("env", "secret"):
        raise BadValue(f"${{{space}.{name}}}: environment variable {name} is not set", f"export {name}=…")
    raise BadValue(f"${{{space}.{name}}}: {space} has no {name!r}{suggest(name, tuple(known))}")


def _text(value: object, written: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    kind = "null" if value is None else type(value).__name__
    raise BadValue(f"{written} is a {kind} and cannot be part of a text", "let it be the whole value")


def _parse(match: re.Match[str]) -> tuple[str, str]:
    if match[2] is None:
        raise BadValue("${ is not closed", "close it with }, or write $${ for the characters themselves")
    name = _NAME.fullmatch(match[2])
    if name is None or name[1] not in NAMESPACES:
        close = suggest(name[1], NAMESPACES) if name else ""
        known = ", ".join(f"${{{space}.…}}" for space in NAMESPACES)
        raise BadValue(f"{match[0]} refers to nothing.{close}", f"templates: {known}; $${{ stands for itself")
    return name[1], name[2]


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [text for entry in inside for text in _texts(entry)]


def is_name(text: str) -> bool:
    """Whether a text can name a step, a column or a param: it must be usable in conditions."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text) and text not in _WORDS
