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
        tree = ast.parse(expression.strip(), mode="eval").body
        for node in ast.walk(tree):
            _check(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnsupportedExpressionError("it cannot be parsed") from error
    return tree


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        raise UnsupportedExpressionError(f"the function {node.func.id} is not supported")
    is_number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    allowed_types = (ast.BinOp, ast.UnaryOp, ast.Name, ast.expr_context, ast.USub, *OPERATORS)
    if not is_number and not isinstance(node, allowed_types):
        raise UnsupportedExpressionError(f"it has {type(node).__name__}; use + - * / and parentheses")


def list_ids(tree: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def evaluate(tree: ast.expr, metrics: Mapping[str, ValuesByTime]) -> ValuesByTime | float:
    """Compute an expression at each time at which all its metrics have values. Leave out results that are not finite.

    The result of an expression without metrics is one number.
    """
    match tree:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return metrics[name]
        case ast.UnaryOp(operand=operand):
            return _combine(operator.mul, -1.0, evaluate(operand, metrics))
        case ast.BinOp(left=left, op=symbol, right=right):
            return _combine(OPERATORS[type(symbol)], evaluate(left, metrics), evaluate(right, metrics))
    raise UnsupportedExpressionError(f"it has {type(tree).__name__}")


def _combine(
    calculate: Callable[[Any, Any], Any], left: ValuesByTime | float, right: ValuesByTime | float
) -> ValuesByTime | float:
    if isinstance(left, float) and isinstance(right, float):
        return _compute(calculate, left, right)
    times = [operand.keys() for operand in (left, right) if not isinstance(operand, float)]
    shared = [time for time in times[0] if time in times[-1]]
    results = {time: _compute(calculate, _get_value(left, time), _get_value(right, time)) for time in shared}
    return {time: value for time, value in results.items() if math.isfinite(value)}


def _get_value(operand: ValuesByTime | float, time: float) -> float:
    return operand if isinstance(operand, float) else operand[time]


def _compute(calculate: Callable[[Any, Any], Any], left: float, right: float) -> float:
    """Return a result; infinity or NaN if it is undefined."""
    try:
        return float(calculate(left, right))
    except (ArithmeticError, ValueError):
        return math.nan
