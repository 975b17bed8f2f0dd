"""The tools that are always there: `current_time`, and `calculate`, arithmetic that can't do anything else.

The grammar of an expression, as Python reads it; nothing of it is ever executed, the syntax tree is walked:

    expression = number / "(" expression ")" / sign expression / expression operator expression
    sign       = "+" / "-"
    operator   = "+" / "-" / "*" / "/" / "//" / "%" / "**"
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sidecar.functions import function

MAX_LENGTH = 500
"""Characters of an expression."""
MAX_DEPTH = 200
"""Levels of nesting; a sum of 200 terms is as deep."""
MAX_BITS = 4096
"""Of an integer on the way, about 1,233 digits: more would cost time, and be no help to anyone."""

Number = int | float

_BINARY: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: _power(base, exponent),
}
_UNARY: Final[Mapping[type, Callable[[Any], Any]]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


@function
def current_time(timezone: str = "UTC") -> str:
    """The current date and time, as ISO 8601. timezone: an IANA name such as Europe/Berlin."""
    if timezone.upper() == "UTC":
        return datetime.now(UTC).isoformat(timespec="seconds")  # needs no tz database, which small images lack
    try:
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {timezone!r}") from None


@function
def calculate(expression: str) -> Number:
    """The value of an arithmetic expression: numbers, parentheses and + - * / // % **, for example (2 + 3) * 4."""
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("not an arithmetic expression") from None
    return _evaluate(tree.body, 0)


def _evaluate(node: ast.expr, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise ValueError("the expression is nested too deeply")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _bounded(_UNARY[type(sign)](_evaluate(operand, depth + 1)))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _bounded(_BINARY[type(sign)](_evaluate(left, depth + 1), _evaluate(right, depth + 1)))
    raise ValueError("only numbers, parentheses and + - * / // % ** are allowed")


def _power(base: Number, exponent: Number) -> Any:
    # Looked at before: computing it is what takes the time.
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise ValueError("the result is too large")
    return base**exponent


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    if value.bit_length() > MAX_BITS if isinstance(value, int) else not math.isfinite(value):
        raise ValueError("the result is too large")
    number: Number = value
    return number
