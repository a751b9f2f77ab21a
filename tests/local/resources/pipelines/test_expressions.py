"""Expressions: their values, their references and their errors."""

from typing import Any

import pytest

from microjobs_orchestrator.local.resources.pipelines import loops
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    ExpressionError,
    Reference,
    ReferenceSource,
    find_references,
    format_path,
    parse_path,
    resolve,
)
from tests.local.resources.pipelines.scopes import FakeScope

SCOPE = FakeScope(
    parameters={"count": 3, "rate": 0.5, "on": True, "name": "x"},
    steps={
        "train": {"ModelArtifacts": {"S3ModelArtifacts": "s3://b/model.tar.gz"}, "Metrics": [{"Value": 0.25}]},
        "prepare": {"Outputs": [{"OutputName": "a", "Uri": "s3://b/a"}, {"OutputName": "b c", "Uri": "s3://b/b"}]},
    },
    files={("prepare", "report"): {"metrics": {"mse.value": [1, 2.5]}}},
    objects={"s3://b/results.json": {"Result": {"k": [10, True]}}},
    item={"size": 2, "names": ["p"]},
)


def make_get(text: str) -> dict[str, Any]:
    """Return a Get expression of a definition."""
    return {"Get": text}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (make_get("Parameters.count"), 3),
        (make_get("Parameters.on"), True),
        (make_get("Execution.PipelineName"), "the PipelineName"),
        (make_get("PipelineExperimentConfig.TrialName"), "the TrialName"),
        (make_get("Steps.train.ModelArtifacts.S3ModelArtifacts"), "s3://b/model.tar.gz"),
        (make_get("Steps.train.Metrics[0].Value"), 0.25),
        (make_get("Steps.prepare.Outputs['a'].Uri"), "s3://b/a"),
        (make_get("Steps.prepare.Outputs['b c'].Uri"), "s3://b/b"),
        (make_get("ForEach.CurrentItem"), {"size": 2, "names": ["p"]}),
        (make_get("ForEach.CurrentItem.names[0]"), "p"),
        (make_get("IterationOutput.train.Metrics[0].Value"), 0.25),
        (
            {"Std:Join": {"On": "-", "Values": ["a", make_get("Parameters.count"), make_get("Parameters.on")]}},
            "a-3-true",
        ),
        ({"Std:Join": {"Values": [1.5, {"Std:Join": {"On": "/", "Values": ["x", "y"]}}]}}, "1.5x/y"),
        (
            {
                "Std:JsonGet": {
                    "PropertyFile": make_get("Steps.prepare.PropertyFiles.report"),
                    "Path": "metrics['mse.value'][1]",
                }
            },
            2.5,
        ),
        (
            {
                "Std:JsonGet": {
                    "S3Uri": {"Std:Join": {"On": "/", "Values": ["s3://b", "results.json"]}},
                    "Path": "$.Result.k[0]",
                }
            },
            10,
        ),
    ],
)
def test_expression_has_typed_value(expression: Any, value: Any) -> None:
    result = resolve({"member": [expression, "plain"]}, SCOPE)["member"][0]
    assert (result, type(result)) == (value, type(value))


def test_member_that_is_named_like_a_function_is_not_an_expression() -> None:
    environment = {"Get": "Parameters.count", "Other": "x"}
    assert resolve(environment, SCOPE) == environment
    assert not list(find_references(environment))


def test_references_are_found_in_all_functions() -> None:
    value = {
        "a": [{"Std:Join": {"On": "", "Values": [make_get("Parameters.count"), make_get("Steps.train.x.y")]}}],
        "b": {"Std:JsonGet": {"PropertyFile": make_get("Steps.prepare.PropertyFiles.report"), "Path": "m"}},
        "c": {"Std:JsonGet": {"S3Uri": {"Std:Join": {"Values": [make_get("Steps.f['x'].y")]}}, "Path": "Result"}},
    }
    assert list(find_references(value)) == [
        Reference(ReferenceSource.PARAMETER, "count"),
        Reference(ReferenceSource.STEP, "train", ("x", "y")),
        Reference(ReferenceSource.STEP, "prepare", ("PropertyFiles", "report")),
        Reference(ReferenceSource.STEP, "f", ("x", "y")),
    ]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (make_get("Stepz.train.x"), "must begin with one of Parameters., Execution., Steps."),
        (make_get("Steps"), "must begin with one of"),
        (make_get("Steps.train"), "lacks the property after the step's name"),
        (make_get("Parameters."), "lacks the name after Parameters"),
        (make_get("Parameters.count.x"), "Parameters values have no members"),
        (make_get("ForEach.Item"), "did you mean ForEach.CurrentItem?"),
        (make_get("Steps.train.a[x]"), r"\[x\].*must be one of .name, \[0\] and \['name'\]"),
        ({"Get": 3}, "Get must have a String, not an Integer"),
        ({"Std:Joim": {"Values": []}}, r'function "Std:Joim" does not exist \(did you mean Std:Join\?\)'),
        ({"Std:Join": {"Values": []}, "x": 1}, "Std:Join must be the only member"),
        ({"Std:Join": {"Value": []}}, r"no member \"Value\" \(did you mean Values\?\)"),
        ({"Std:Join": {"On": ","}}, "lacks the member Values"),
        ({"Std:Join": {"Values": "x"}}, "an array as Values"),
        ({"Std:JsonGet": {"Path": "a"}}, "either PropertyFile or S3Uri"),
        ({"Std:JsonGet": {"Path": 1, "S3Uri": "s3://b/k"}}, "a String as Path, not an Integer"),
        ({"Std:JsonGet": {"Path": "a", "PropertyFile": make_get("Steps.a.b.c")}}, "must be Steps.<step>.PropertyFiles"),
    ],
)
def test_invalid_expression_is_explained(expression: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        list(find_references(expression))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (make_get("Steps.train.ModelArtifact"), r"\.ModelArtifact does not exist \(did you mean ModelArtifacts\?\)"),
        (make_get("Steps.train.Metrics[1]"), "the list has 1 items"),
        (make_get("Steps.prepare.Outputs['c']"), r"\(known: a, b c\)"),
        (make_get("Steps.train.Metrics[0].Value.x"), "the value before it is a Float"),
        ({"Std:Join": {"Values": [make_get("Steps.train.Metrics")]}}, "cannot join an array"),
        ({"Std:JsonGet": {"Path": "a", "S3Uri": make_get("Parameters.count")}}, "must be a String, not an Integer"),
    ],
)
def test_value_that_cannot_be_used_is_explained(expression: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        resolve(expression, SCOPE)


@pytest.mark.parametrize("text", ["", ".a", ".a[0]['b c'].d", "['x-y']"])
def test_format_of_a_parsed_path_is_its_text(text: str) -> None:
    assert format_path(parse_path(text)) == text


def test_selector_refuses_a_number_that_is_too_large_for_a_float() -> None:
    with pytest.raises(ExpressionError, match="is not a number"):
        loops._read_number(10**400)
