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

FAIL = {"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": "x"}}
TRAIN = {"Name": "train", "Type": "Training", "Arguments": {}}
LOOP = {"IterableItems": [1], "MaxConcurrency": 2, "ForEachBody": [TRAIN]}


def parse(*steps: Any, **members: Any) -> Definition:
    return parse_definition(json.dumps({"Version": VERSION, "Steps": steps, **members}))


def step(**members: Any) -> dict[str, Any]:
    return {**TRAIN, **members}


def test_members_of_a_step_become_values() -> None:
    (parsed,) = parse(
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
    assert (parsed.name, parsed.type, parsed.arguments) == ("prepare", StepType.PROCESSING, {"RoleArn": "x"})
    assert (parsed.display_name, parsed.description) == ("Prepare data", "d")
    assert parsed.depends_on == (Dependency("a"), Dependency("b", Trigger.FAILED))
    assert parsed.cache == CacheConfig(True, "P1D")
    assert parsed.retry_policies == (
        RetryPolicy(("Step.THROTTLING",), 3, 1.5, max_attempts=4),
        RetryPolicy(("SageMaker.CAPACITY_ERROR",), 1, 2.0, expire_after_minutes=5),
        RetryPolicy(("Step.SERVICE_FAULT",), 1, 2.0, max_attempts=5),
    )
    assert parsed.property_files == (PropertyFile("r", "o", "f.json"),)


def test_function_and_queue_become_targets() -> None:
    outputs = [{"OutputName": "n", "OutputType": "Integer"}]
    function, queue = parse(
        {"Name": "f", "Type": "Lambda", "FunctionArn": "arn", "Arguments": {"a": 1}, "OutputParameters": outputs},
        {"Name": "q", "Type": "Callback", "SqsQueueUrl": {"Get": "Parameters.u"}, "OutputParameters": []},
    ).steps
    assert (function.target, function.arguments) == ("arn", {"a": 1})
    assert function.output_parameters == (OutputParameter("n", ParameterType.INTEGER),)
    assert queue.target == {"Get": "Parameters.u"}


def test_branches_and_loops_contain_steps() -> None:
    branches = {"Conditions": [], "IfSteps": [step(Name="a")], "ElseSteps": [FAIL]}
    definition = parse(
        {"Name": "c", "Type": "Condition", "Arguments": branches},
        {"Name": "l", "Type": "ForEach", "DependsOn": ["c"], "Arguments": {**LOOP, "ForEachBody": [step(Name="b")]}},
    )
    assert [step.name for step in definition.walk()] == ["c", "a", "stop", "l", "b"]
    assert definition.steps[0].arguments == {"Conditions": []}
    assert definition.steps[1].arguments == {"IterableItems": [1], "MaxConcurrency": 2}
    assert make_graph(definition) == {"c": set(), "a": {"c"}, "stop": {"c"}, "l": {"c", "b"}, "b": {"c"}}


def test_dependencies_are_listed_and_read() -> None:
    arguments = {"x": {"Get": "Steps.a.b"}, "y": {"Get": "Steps.c.d"}}
    (parsed,) = parse(step(Arguments=arguments, DependsOn=[{"Step": "c", "Trigger": "Any"}])).steps
    assert find_dependencies(parsed) == (Dependency("c", Trigger.ANY), Dependency("a"))
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
        parse_definition(json.dumps({"Version": VERSION, "Steps": [FAIL], **members}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, r"Steps\[0\]: expected an object, found an Integer"),
        (
            step(Type="Trainin"),
            r'step "train", member Type: value "Trainin" does not exist \(did you mean Training\?\)',
        ),
        (step(Type="EMR"), r"steps of type EMR are not supported locally: use a Processing step"),
        (step(Type=None), "member Type is missing"),
        (step(Name="a b"), r'member Name: "a b" must have 1 to 64 ASCII letters'),
        (step(Dependson=["x"]), r'step "train": member "Dependson" is unknown \(did you mean DependsOn\?\)'),
        (step(PropertyFiles=[]), 'member "PropertyFiles" is unknown'),
        (step(Arguments=[]), "member Arguments: expected an object, found an array"),
        ({"Name": "a", "Type": "Training"}, "member Arguments is missing"),
        ({"Name": "a", "Type": "Lambda"}, "member FunctionArn is missing"),
        (step(DependsOn=[1]), r"DependsOn\[0\]: expected an object, found an Integer"),
        (step(DependsOn=[{"Step": "a", "Trigger": "Fail"}]), "did you mean Failed"),
        (step(CacheConfig={"Enabled": "yes"}), "member CacheConfig, member Enabled: expected a Boolean"),
        (step(CacheConfig={"Enabled": True, "ExpireAfter": "1 day"}), '"1 day" is not an ISO 8601 duration'),
        (step(RetryPolicies=[{"ExceptionType": ["Step.X"], "MaxAttempts": 1}]), r'"Step.X" does not exist \('),
        (
            step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 1, "ExpireAfterMin": 1}]),
            "ExpireAfterMin, not both",
        ),
        (step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": True}]), "an Integer from 0 to 20, found true"),
        (step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 2.5}]), "an Integer from 0 to 20, found 2.5"),
        (step(RetryPolicies=[{"ExceptionType": [], "MaxAttempts": 21}]), "an Integer from 0 to 20, found 21"),
        (step(Type="Condition", Arguments={"Conditions": [{}]}), r"Arguments.Conditions\[0\]: condition type null"),
        (step(Type="Fail", Arguments={"Message": "x"}), "did you mean ErrorMessage"),
        (step(Type="ForEach", Arguments={**LOOP, "MaxConcurrency": 51}), "from 1 to 50, found 51"),
        (step(Type="ForEach", Arguments={**LOOP, "IterableItems": []}), "expected 1 to 100 items, found 0"),
        (step(Type="ForEach", Arguments={**LOOP, "IterableItems": "x"}), "an expression or an array, found a String"),
        (step(Type="ForEach", Arguments={**LOOP, "ForEachBody": []}), "at least one step"),
        (step(Type="ForEach", Arguments={**LOOP, "ForEachBody": [FAIL]}), "cannot contain a step of type Fail"),
        (step(Type="ForEach", Arguments={**LOOP, "Selector": {"Pick": "Max", "Field": 1}}), "expected MaxBy or MinBy"),
    ],
)
def test_invalid_step_is_explained(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=f"^Invalid pipeline definition: .*{message}"):
        parse(value)


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
    text = json.dumps({"Version": VERSION, "Steps": [FAIL]})
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
    definition = parse(FAIL, Parameters=PARAMETERS)
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
        bind_parameters(parse(FAIL, Parameters=PARAMETERS), values)
