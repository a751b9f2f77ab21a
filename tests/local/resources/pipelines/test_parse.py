"""Parsing of definitions: values, and errors that name the step, the member and the nearest known name."""

import json
from datetime import timedelta
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.graph import find_dependencies, make_graph
from microjobs_orchestrator.local.resources.pipelines.definition.parameters import bind_parameters
from microjobs_orchestrator.local.resources.pipelines.definition.parse import (
    MAX_CHARACTERS,
    VERSION,
    parse_definition,
)
from microjobs_orchestrator.local.resources.pipelines.definition.policies import parse_duration
from microjobs_orchestrator.local.resources.pipelines.definition.values import (
    CacheConfig,
    Definition,
    Dependency,
    OutputParameter,
    ParameterType,
    PropertyFile,
    RetryPolicy,
    StepType,
    Trigger,
)

FAIL_STEP = {"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": "x"}}
TRAINING_STEP = {"Name": "train", "Type": "Training", "Arguments": {}}
LOOP_ARGUMENTS = {"IterableItems": [1], "MaxConcurrency": 2, "ForEachBody": [TRAINING_STEP]}


def parse(*steps: Any, **members: Any) -> Definition:
    return parse_definition(json.dumps({"Version": VERSION, "Steps": steps, **members}))


def make_step(**members: Any) -> dict[str, Any]:
    return {**TRAINING_STEP, **members}


def test_members_of_a_step_become_values() -> None:
    (step,) = parse(
        {
            "Name": "prepare",
            "Type": "Processing",
            "Arguments": {"RoleArn": "x"},
            "DisplayName": "Prepare data",
            "Description": "d",
            "DependsOn": ["a", {"Step": "b", "Trigger": "Failed"}],
            "CacheConfig": {"Enabled": True, "ExpireAfter": "P1D"},
            "RetryPolicies": [
                {"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 3, "BackoffRate": 1.5, "MaxAttempts": 4},
                {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "ExpireAfterMin": 5},
                {"ExceptionType": ["Step.SERVICE_FAULT"]},
            ],
            "PropertyFiles": [{"PropertyFileName": "r", "OutputName": "o", "FilePath": "f.json"}],
        }
    ).steps
    assert (step.name, step.type, step.arguments) == ("prepare", StepType.PROCESSING, {"RoleArn": "x"})
    assert (step.display_name, step.description) == ("Prepare data", "d")
    assert step.depends_on == (Dependency("a"), Dependency("b", Trigger.FAILED))
    assert step.cache == CacheConfig(is_enabled=True, expire_after="P1D")
    assert step.retry_policies == (
        RetryPolicy(("Step.THROTTLING",), interval_seconds=3, backoff_rate=1.5, max_attempts=4),
        RetryPolicy(("SageMaker.CAPACITY_ERROR",), interval_seconds=1, backoff_rate=2.0, expire_after_minutes=5),
        RetryPolicy(("Step.SERVICE_FAULT",), interval_seconds=1, backoff_rate=2.0, max_attempts=5),
    )
    assert step.property_files == (PropertyFile("r", "o", "f.json"),)


def test_function_and_queue_are_receivers_of_steps() -> None:
    outputs = [{"OutputName": "n", "OutputType": "Integer"}]
    lambda_step, callback_step = parse(
        {"Name": "f", "Type": "Lambda", "FunctionArn": "arn", "Arguments": {"a": 1}, "OutputParameters": outputs},
        {"Name": "q", "Type": "Callback", "SqsQueueUrl": {"Get": "Parameters.u"}, "OutputParameters": []},
    ).steps
    assert (lambda_step.receiver, lambda_step.arguments) == ("arn", {"a": 1})
    assert lambda_step.output_parameters == (OutputParameter("n", ParameterType.INTEGER),)
    assert callback_step.receiver == {"Get": "Parameters.u"}


def test_branches_and_loops_contain_steps() -> None:
    branches = {"Conditions": [], "IfSteps": [make_step(Name="a")], "ElseSteps": [FAIL_STEP]}
    definition = parse(
        {"Name": "c", "Type": "Condition", "Arguments": branches},
        {
            "Name": "l",
            "Type": "ForEach",
            "DependsOn": ["c"],
            "Arguments": {**LOOP_ARGUMENTS, "ForEachBody": [make_step(Name="b")]},
        },
    )
    assert [step.name for step in definition.walk()] == ["c", "a", "stop", "l", "b"]
    assert definition.steps[0].arguments == {"Conditions": []}
    assert definition.steps[1].arguments == {"IterableItems": [1], "MaxConcurrency": 2}
    assert make_graph(definition) == {"c": set(), "a": {"c"}, "stop": {"c"}, "l": {"c", "b"}, "b": {"c"}}


def test_dependencies_come_from_depends_on_and_from_expressions() -> None:
    arguments = {"x": {"Get": "Steps.a.b"}, "y": {"Get": "Steps.c.d"}}
    (step,) = parse(make_step(Arguments=arguments, DependsOn=[{"Step": "c", "Trigger": "Any"}])).steps
    assert find_dependencies(step) == (Dependency("c", Trigger.ANY), Dependency("a"))
    sources = {"Resources": {"S3": [{"StepName": "t"}]}}
    (cleanup,) = parse({"Name": "c", "Type": "Cleanup", "Arguments": sources}).steps
    assert find_dependencies(cleanup) == (Dependency("t"),)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Steps": []}, "member Steps: a pipeline must have at least one step"),
        ({"Steps": {}}, "member Steps: expected an array, found an object"),
        ({"Version": "2020"}, "member Version: expected '2020-12-01', found \"2020\""),
        ({"Step": []}, r'member "Step" is unknown \(did you mean Steps\?\)'),
        ({"Parameters": [{"Name": "p", "Type": "Int"}]}, r"parameter \"p\", member Type: .*Int.*did you mean"),
        ({"Parameters": [{"Type": "String"}]}, r"Parameters\[0\]: member Name is missing"),
        ({"Parameters": [{"Name": "p", "DefaultValue": 3}]}, "member DefaultValue: expected a value of type String"),
        ({"Parameters": [{"Name": "p", "Type": "Integer", "DefaultValue": True}]}, "found a Boolean: true"),
        (
            {"Parameters": [{"Name": "p", "EnumValues": ["aab", "ccc"], "DefaultValue": "aaa"}]},
            r'"aaa" is not one of EnumValues \(did you mean aab\?\)',
        ),
        ({"Parameters": [{"Name": "p", "EnumValues": [1]}]}, "member EnumValues: expected a value of type String"),
        ({"Parameters": [{"Name": f"p{n}"} for n in range(201)]}, "there are 201 parameters, more than 200"),
        ({"PipelineExperimentConfig": {"Experiment": "x"}}, "did you mean ExperimentName"),
    ],
)
def test_invalid_definition_is_explained(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"^Invalid pipeline definition: .*{message}"):
        parse_definition(json.dumps({"Version": VERSION, "Steps": [FAIL_STEP], **members}))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (1, r"Steps\[0\]: expected an object, found an Integer"),
        (
            make_step(Type="Trainin"),
            r'step "train", member Type: value "Trainin" does not exist \(did you mean Training\?\)',
        ),
        (make_step(Type="EMR"), r"steps of type EMR are not supported locally: use a Processing step"),
        (make_step(Type=None), "member Type is missing"),
        (make_step(Name="a b"), r'member Name: "a b" must have 1 to 64 ASCII letters'),
        (make_step(Dependson=["x"]), r'step "train": member "Dependson" is unknown \(did you mean DependsOn\?\)'),
        (make_step(PropertyFiles=[]), 'member "PropertyFiles" is unknown'),
        (make_step(Arguments=[]), "member Arguments: expected an object, found an array"),
        ({"Name": "a", "Type": "Training"}, "member Arguments is missing"),
        ({"Name": "a", "Type": "Lambda"}, "member FunctionArn is missing"),
        (make_step(DependsOn=[1]), r"DependsOn\[0\]: expected an object, found an Integer"),
        (make_step(DependsOn=[{"Step": "a", "Trigger": "Fail"}]), "did you mean Failed"),
        (make_step(CacheConfig={"Enabled": "yes"}), "member CacheConfig, member Enabled: expected a Boolean"),
        (make_step(CacheConfig={"Enabled": True, "ExpireAfter": "1 day"}), '"1 day" is not an ISO 8601 duration'),
        (make_step(RetryPolicies=[{"ExceptionType": ["Step.X"], "MaxAttempts": 1}]), r'"Step.X" does not exist \('),
        (
            make_step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 1, "ExpireAfterMin": 1}]),
            "ExpireAfterMin, not both",
        ),
        (make_step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": True}]), "an Integer from 0 to 20, found true"),
        (make_step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 2.5}]), "an Integer from 0 to 20, found 2.5"),
        (make_step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 21}]), "an Integer from 0 to 20, found 21"),
        (
            make_step(Type="Condition", Arguments={"Conditions": [{}]}),
            r"Arguments.Conditions\[0\]: condition type null",
        ),
        (make_step(Type="Fail", Arguments={"Message": "x"}), "did you mean ErrorMessage"),
        (make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "MaxConcurrency": 51}), "from 1 to 50, found 51"),
        (
            make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "IterableItems": []}),
            "expected 1 to 100 items, found 0",
        ),
        (
            make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "IterableItems": "x"}),
            "an expression or an array, found a String",
        ),
        (make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "ForEachBody": []}), "at least one step"),
        (
            make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "ForEachBody": [FAIL_STEP]}),
            "cannot contain a step of type Fail",
        ),
        (
            make_step(Type="ForEach", Arguments={**LOOP_ARGUMENTS, "Selector": {"Pick": "Max", "Field": 1}}),
            "expected MaxBy or MinBy",
        ),
    ],
)
def test_invalid_step_is_explained(step: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=f"^Invalid pipeline definition: .*{message}"):
        parse(step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON: .*line 1 column 2"),
        ('{"Version": NaN}', "NaN is not a number of JSON"),
        ('{"Version": 1e999}', "1e999 is too large for a number"),
        ('{"Version": "a", "Version": "b"}', 'member "Version" occurs twice'),
        ("[" * 300 + "]" * 300, "nested more than 200 deep"),
        ("[" * 500_000 + "]" * 500_000, "nested more than 200 deep"),
        (" " * (MAX_CHARACTERS + 1), "1048577 characters, more than 1048576"),
    ],
)
def test_invalid_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse_definition(text)


def test_largest_text_is_parsed() -> None:
    text = json.dumps({"Version": VERSION, "Steps": [FAIL_STEP]})
    assert parse_definition(text.ljust(MAX_CHARACTERS)).steps[0].name == "stop"


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("P30D", timedelta(days=30)),
        ("p30d", timedelta(days=30)),
        ("P4DT12H", timedelta(days=4, hours=12)),
        ("T12H", timedelta(hours=12)),
        ("PT1M0.5S", timedelta(minutes=1, seconds=0.5)),
        ("P1Y1M1W", timedelta(days=402)),
        ("P", None),
        ("30 days", None),
        ("", None),
    ],
)
def test_durations_are_parsed(text: str, duration: timedelta | None) -> None:
    assert parse_duration(text) == duration


PARAMETERS = [
    {"Name": "text", "DefaultValue": "a", "EnumValues": ["a", "b"]},
    {"Name": "count", "Type": "Integer", "DefaultValue": 1},
    {"Name": "rate", "Type": "Float", "DefaultValue": 1},
    {"Name": "on", "Type": "Boolean", "DefaultValue": False},
    {"Name": "must", "Type": "String"},
]


def test_parameters_have_typed_values() -> None:
    definition = parse(FAIL_STEP, Parameters=PARAMETERS)
    assert bind_parameters(definition, {"must": "1"}) == {"text": "a", "count": 1, "rate": 1, "on": False, "must": "1"}
    values = {"text": "b", "count": "-2", "rate": "1e-3", "on": "True", "must": ""}
    assert bind_parameters(definition, values) == {"text": "b", "count": -2, "rate": 0.001, "on": True, "must": ""}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Parameter must has no default value"),
        ({"must": "", "cuont": "1"}, r'Parameter "cuont" is not defined in the pipeline \(did you mean count\?\)'),
        ({"must": "", "text": "c"}, r'"c" is not one of EnumValues'),
        ({"must": "", "count": "1.5"}, "Parameter count: expected a value of type Integer"),
        ({"must": "", "count": "true"}, 'expected a value of type Integer, found "true"'),
        ({"must": "", "rate": "NaN"}, 'expected a value of type Float, found "NaN"'),
        ({"must": "", "rate": "1e999"}, 'expected a value of type Float, found "1e999"'),
        ({"must": "", "on": "1"}, 'expected a value of type Boolean, found "1"'),
    ],
)
def test_invalid_values_of_parameters_are_explained(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        bind_parameters(parse(FAIL_STEP, Parameters=PARAMETERS), values)
