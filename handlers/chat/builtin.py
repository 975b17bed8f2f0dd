"""The tools that are always there: `current_time`, and `calculate`, arithmetic that can't do anything else.

The grammar of an expression, as Python reads it; nothing of it is ever executed, the syntax tree is walked:

    expression = number / "(" expression ")" / sign expression / expression operator expression
    sign       = "+" / "-"
    operator   = "+" / "-" / "*" / "/" / "//" / "%"

Limit: there are no powers. So a short expression can't take long, and its result is never much longer than it is itself.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sidecar.functions import function

MAX_LENGTH = 500
"""Characters of an expression."""

Number = int | float

_BINARY: Final[Mapping[type, Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: Final[Mapping[type, Callable[[Number], Number]]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


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
    """The value of an arithmetic expression: numbers, parentheses and + - * / // %, for example (2 + 3) * 4."""
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("not an arithmetic expression") from None
    return _evaluate(tree.body)


def _evaluate(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _finite(value)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_evaluate(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _finite(_BINARY[type(sign)](_evaluate(left), _evaluate(right)))
    raise ValueError("only numbers, parentheses and + - * / // % are allowed")


def _finite(value: Number) -> Number:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the result is too large")
    return value
