"""Arithmetic on metrics: the part of CloudWatch's metric math that the server supports."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

ValuesByTime = Mapping[float, float]
"""The values of a metric by time."""

OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class UnsupportedExpressionError(Exception):
    """An expression is malformed, or has a part that is not supported. The message names this part."""


def parse(expression: str) -> ast.expr:
    """Parse an expression with the ids of other metrics, numbers, + - * / and parentheses.

    Raises:
        UnsupportedExpressionError
    """
    try:
        parsed = ast.parse(expression.strip(), mode="eval").body
        for part in ast.walk(parsed):
            _check(part)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnsupportedExpressionError("it cannot be parsed") from error
    return parsed


def _check(part: ast.AST) -> None:
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
        raise UnsupportedExpressionError(f"the function {part.func.id} is not supported")
    is_number = isinstance(part, ast.Constant) and type(part.value) in (int, float)
    allowed_types = (ast.BinOp, ast.UnaryOp, ast.Name, ast.expr_context, ast.USub, *OPERATORS)
    if not is_number and not isinstance(part, allowed_types):
        raise UnsupportedExpressionError(f"it has {type(part).__name__}; use + - * / and parentheses")


def list_ids(parsed: ast.expr) -> list[str]:
    return [part.id for part in ast.walk(parsed) if isinstance(part, ast.Name)]


def evaluate(parsed: ast.expr, metrics: Mapping[str, ValuesByTime]) -> ValuesByTime | float:
    """Compute an expression at each time at which all its metrics have values, and the result is a finite number.

    The result of an expression without metrics is one number.
    """
    match parsed:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return metrics[name]
        case ast.UnaryOp(operand=operand):
            return _combine(operator.mul, -1.0, evaluate(operand, metrics))
        case ast.BinOp(left=left, op=symbol, right=right):
            return _combine(OPERATORS[type(symbol)], evaluate(left, metrics), evaluate(right, metrics))
    raise UnsupportedExpressionError(f"it has {type(parsed).__name__}")


def _combine(
    calculate: Callable[[Any, Any], Any], left: ValuesByTime | float, right: ValuesByTime | float
) -> ValuesByTime | float:
    if isinstance(left, float) and isinstance(right, float):
        return _compute(calculate, left, right)
    times = [value.keys() for value in (left, right) if not isinstance(value, float)]
    shared = [time for time in times[0] if time in times[-1]]
    results = {time: _compute(calculate, _get(left, time), _get(right, time)) for time in shared}
    return {time: value for time, value in results.items() if math.isfinite(value)}


def _get(value: ValuesByTime | float, time: float) -> float:
    return value if isinstance(value, float) else value[time]


def _compute(calculate: Callable[[Any, Any], Any], left: float, right: float) -> float:
    """Return a result; infinity or NaN if it is undefined."""
    try:
        return float(calculate(left, right))
    except (ArithmeticError, ValueError):
        return math.nan
