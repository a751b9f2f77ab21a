"""Event patterns, in EventBridge's syntax. A pattern selects the events that a target receives.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Pattern = Mapping[str, Any]
Scalar = str | int | float | bool


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_prefix(expected: Any, value: Any) -> bool:
    return isinstance(value, str) and value.startswith(expected)


def _is_suffix(expected: Any, value: Any) -> bool:
    return isinstance(value, str) and value.endswith(expected)


def _equals_ignoring_case(expected: Any, value: Any) -> bool:
    return isinstance(value, str) and value.lower() == expected.lower()


def _is_none_of(expected: Any, value: Any) -> bool:
    return value not in _as_list(expected)


Test = Callable[[Any, Any], bool]

COMPARISON_OPERATORS: Mapping[str, tuple[Test, type | tuple[type, ...]]] = {
    "prefix": (_is_prefix, str),
    "suffix": (_is_suffix, str),
    "equals-ignore-case": (_equals_ignoring_case, str),
    "anything-but": (_is_none_of, (str, int, float, bool, list)),
    "exists": (lambda *_: True, bool),
}
"""The test of one value, and the allowed types of the operator's argument, by EventBridge's name of the operator.
The test of `exists` is never called: `_matches_item` decides this operator, because it must also match if there is no
value that a test could receive."""


def check_pattern(pattern: Any, path: str = "") -> None:
    """Check the syntax of a pattern.

    Raises:
        ValueError: the pattern is invalid; the message names the member.
    """
    for name, expected in pattern.items():
        member = f"{path}{name}"
        if isinstance(expected, Mapping):
            check_pattern(expected, f"{member}.")
        elif not isinstance(expected, list):
            raise ValueError(f"pattern {member} must be a list of values or a table, not {expected!r}")
        else:
            for item in expected:
                _check_operator(item, member)


def _check_operator(item: Any, member: str) -> None:
    if isinstance(item, Scalar):
        return
    name = next(iter(item), "") if isinstance(item, Mapping) and len(item) == 1 else ""
    if name not in COMPARISON_OPERATORS:
        raise ValueError(
            f"pattern {member} has {item!r}: use a value, or a table with one of {', '.join(COMPARISON_OPERATORS)}"
        )
    if not isinstance(item[name], COMPARISON_OPERATORS[name][1]):
        raise ValueError(f"pattern {member} has an invalid value for {name}: {item[name]!r}")


def matches(pattern: Pattern, event: Mapping[str, Any]) -> bool:
    """Return whether an event satisfies all members of a checked pattern."""
    return all(_matches_member(expected, list(_list_values(event, name))) for name, expected in pattern.items())


def _list_values(event: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Yield the value of a member, or the items of the value if it is a list; nothing if the member is missing."""
    if name in event:
        yield from _as_list(event[name])


def _matches_member(expected: Any, values: Sequence[Any]) -> bool:
    if isinstance(expected, Mapping):
        return any(matches(expected, value) for value in values if isinstance(value, Mapping))
    return any(_matches_item(item, values) for item in expected)


def _matches_item(item: Any, values: Sequence[Any]) -> bool:
    if not isinstance(item, Mapping):
        return any(type(value) is type(item) and value == item for value in values)
    ((name, expected),) = item.items()
    if name == "exists":
        return (len(values) > 0) is expected
    test = COMPARISON_OPERATORS[name][0]
    return any(test(expected, value) for value in values)
