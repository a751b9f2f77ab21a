"""Damaged definitions are accepted, or refused with an error in AWS's form, in bounded time."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.checks import read_definition
from tests.local.resources.pipelines.test_checks import (
    PARAMETERS,
    VERSION,
    make_condition_step,
    make_fail,
    make_get,
    make_lambda,
    make_loop,
    make_processing,
    make_training,
)

REPORT = {"Std:JsonGet": {"PropertyFile": make_get("Steps.prepare.PropertyFiles.report"), "Path": "a.b"}}
SELECTOR = {"Pick": "MaxBy", "Field": make_get("IterationOutput.inner.BillableTimeInSeconds")}
COMPLETE_DEFINITION: dict[str, Any] = {
    "Version": VERSION,
    "Metadata": {},
    "Parameters": [*PARAMETERS, {"Name": "kind", "EnumValues": ["a", "b"], "DefaultValue": "a"}],
    "PipelineExperimentConfig": {"ExperimentName": "e", "TrialName": make_get("Execution.PipelineExecutionId")},
    "Steps": [
        {
            **make_processing(),
            "CacheConfig": {"Enabled": True, "ExpireAfter": "P30D"},
            "RetryPolicies": [{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 2, "BackoffRate": 2.0}],
        },
        make_training(depends_on=("prepare",), Environment={"A": {"Std:Join": {"On": "-", "Values": ["a"]}}}),
        make_lambda(path=make_get("Steps.train.ModelArtifacts.S3ModelArtifacts")),
        make_condition_step(REPORT, make_fail(make_get("Parameters.text")), make_training("again")),
        make_loop(make_training("inner", Environment={"ITEM": make_get("ForEach.CurrentItem")}), Selector=SELECTOR),
        {"Name": "clean", "Type": "Cleanup", "Arguments": {"Resources": {"S3": [{"StepName": "train"}]}}},
    ],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Get", "Std:Join", "Name", "Type", "On", "Values"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prepare", "train", "check", "inner", "absent", "Parameters.text", "Steps.train.x[0]", "Steps."]
)


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all parts of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, content in items:
        yield (*path, name)
        yield from list_paths(content, (*path, name))


VALUE_PATHS = list(list_paths(COMPLETE_DEFINITION))


def damage(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy of the complete definition with another value at a path."""
    damaged_definition = copy.deepcopy(COMPLETE_DEFINITION)
    container: Any = damaged_definition
    for part in path[:-1]:
        container = container[part]
    container[path[-1]] = value
    return damaged_definition


def check_explanation(definition: dict[str, Any]) -> None:
    """Check that a definition is valid, or that its error is explained in a message of limited length."""
    message = "Invalid pipeline definition: "
    try:
        read_definition(json.dumps(definition))
    except ValidationError as error:
        message = error.message
    assert message.startswith("Invalid pipeline definition: ")
    assert len(message) < 20_000


def test_complete_definition_is_valid() -> None:
    assert len(read_definition(json.dumps(COMPLETE_DEFINITION)).steps) == 6


@pytest.mark.slow
@given(st.sampled_from(VALUE_PATHS), VALUES | NAMES | NAMES.map(make_get))
@settings(max_examples=400, deadline=2000)
def test_damaged_part_is_accepted_or_explained(path: tuple[Any, ...], value: Any) -> None:
    check_explanation(damage(path, value))


@given(st.sampled_from(VALUE_PATHS))
@settings(max_examples=100, deadline=2000)
def test_missing_part_is_accepted_or_explained(path: tuple[Any, ...]) -> None:
    damaged_definition = damage(path, None)
    container: Any = damaged_definition
    for part in path[:-1]:
        container = container[part]
    del container[path[-1]]
    check_explanation(damaged_definition)


def make_nested_conditions(depth: int) -> Any:
    """Return a Fail step below Condition steps, at this depth."""
    step: Any = make_fail("x", name="s0")
    for number in range(1, depth):
        step = make_condition_step(1, step, name=f"s{number}")
    return step


def test_deep_definition_is_valid() -> None:
    """The depth is limited to protect the stack, but 30 nested conditions occur in practice and must be accepted."""
    assert (
        len(list(read_definition(json.dumps({"Version": VERSION, "Steps": [make_nested_conditions(49)]})).walk())) == 49
    )
    value: Any = "x"
    for _ in range(190):
        value = [value]
    read_definition(json.dumps({"Version": VERSION, "Steps": [make_lambda(deep=value)]}))


LONG_TEXT = "x" * 900_000
HUGE_STEPS: dict[str, Any] = {
    "branches": [make_nested_conditions(300)],
    "names": [make_training("s" * 900_000)],
    "path": [make_training(), make_fail(make_get(f"Steps.train{'.a' * 400_000}"))],
    "brackets": [make_training(), make_fail(make_get(f"Steps.train{'[0]' * 300_000}"))],
    "values": [make_training(Environment={"A": LONG_TEXT, "B": LONG_TEXT[:1000]})],
    "dependencies": [make_training(depends_on=("absent",) * 50_000)],
    "steps": [*(make_fail("x", name=f"s{number}") for number in range(8_000)), make_training(depends_on=("s_1",))],
    "duplicates": [make_fail("x")] * 8_000,
    "cycle": [{**make_fail("x", name=f"s{n}"), "DependsOn": [f"s{(n + 1) % 5_000}"]} for n in range(5_000)],
    "conditions": [make_condition_step([[[[]]]])],
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("steps", HUGE_STEPS.values(), ids=HUGE_STEPS)
def test_huge_definition_is_explained_in_bounded_time(steps: list[Any]) -> None:
    with pytest.raises(ValidationError, match=r"^Invalid pipeline definition: ") as caught:
        read_definition(json.dumps({"Version": VERSION, "Steps": steps}))
    assert len(caught.value.message) < 20_000
