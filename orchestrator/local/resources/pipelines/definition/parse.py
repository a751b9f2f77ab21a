"""Parsing of definitions: conversion of JSON text to values. The module `checks` then checks how the parts of a
definition fit together."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.conditions import check_condition
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError
from microjobs_orchestrator.local.resources.pipelines.definition.messages import (
    get_type_name,
    make_error,
    make_text_error,
    quote,
)
from microjobs_orchestrator.local.resources.pipelines.definition.parameters import parse_parameter
from microjobs_orchestrator.local.resources.pipelines.definition.policies import parse_cache, parse_retry_policy
from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS
from microjobs_orchestrator.local.resources.pipelines.definition.structures import Structure
from microjobs_orchestrator.local.resources.pipelines.definition.values import (
    Definition,
    Dependency,
    OutputParameter,
    ParameterType,
    PropertyFile,
    Step,
    StepType,
    Trigger,
)

VERSION = "2020-12-01"
MAX_CHARACTERS = 1 << 20
"""Maximum number of characters of a definition, as in a response of DescribePipeline."""
MAX_DEPTH = 200
"""Maximum depth of nested objects and arrays. It prevents an overflow of a thread's stack. A Condition step adds three
levels: the step, its arguments, and the list of the steps in a branch."""
MAX_PARAMETERS = 200
"""Maximum number of parameters, as in a request of StartPipelineExecution."""
MAX_CONCURRENCY = 50
"""Maximum value of MaxConcurrency of a ForEach step."""
MAX_ITEMS = 100
"""Maximum number of items of a ForEach step whose IterableItems is an array. `loops` has the limit for expressions."""

_MEMBERS = ("Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps")
_STEP_MEMBERS = ("Name", "Type", "Arguments", "DependsOn", "DisplayName", "Description")


def parse_definition(text: str) -> Definition:
    """Parse a definition.

    Raises:
        ValidationError: the text is not the JSON of a definition. The message names the step and the member. If a name
            is unknown, the message also contains the most similar known name.
    """
    root = Structure(_parse_json(text), "the definition", _MEMBERS, required_members=("Version", "Steps"))
    if root.read_text("Version") != VERSION:
        raise make_error("member Version", f"expected {VERSION!r}, found {quote(root.members['Version'])}")
    parameters, steps = root.read_list("Parameters"), root.read_list("Steps")
    if len(parameters) > MAX_PARAMETERS:
        raise make_error("member Parameters", f"there are {len(parameters)} parameters, more than {MAX_PARAMETERS}")
    if not steps:
        raise make_error("member Steps", "a pipeline must have at least one step")
    return Definition(
        VERSION,
        tuple(parse_step(step, f"Steps[{index}]") for index, step in enumerate(steps)),
        tuple(parse_parameter(value, f"Parameters[{index}]") for index, value in enumerate(parameters)),
        _read_optional_object(root, "PipelineExperimentConfig", ("ExperimentName", "TrialName")),
        _read_optional_object(root, "MlflowConfig", ("MlflowResourceArn", "MlflowExperimentName")),
    )


def _read_optional_object(root: Structure, member: str, known_members: tuple[str, ...]) -> Mapping[str, Any] | None:
    return Structure(root.members[member], f"member {member}", known_members).members if root.has(member) else None


# --- JSON ---


def _parse_json(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise make_text_error(f"it has {len(text)} characters, more than {MAX_CHARACTERS}")
    try:
        value = json.loads(
            text, object_pairs_hook=_make_object, parse_constant=_refuse_constant, parse_float=_parse_float
        )
    except RecursionError:
        raise make_text_error(f"objects and arrays are nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise make_text_error(f"it is not JSON: {error}") from None
    _check_depth(value)
    return value


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        (repeated_name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise make_text_error(f"member {quote(repeated_name)} occurs twice in one object")
    return members


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for container in level for item in _list_containers(container)]
        if not level:
            return
    raise make_text_error(f"objects and arrays are nested more than {MAX_DEPTH} deep")


def _list_containers(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


# --- steps ---


def parse_step(value: Any, place: str) -> Step:
    """Parse a step, and the steps that it contains."""
    if not isinstance(value, dict):
        raise make_error(place, f"expected an object, found {get_type_name(value)}")
    if isinstance(value.get("Name"), str):
        place = f"step {quote(value['Name'])}"
    # The type is read first, because it determines the known members.
    step_type = Structure({"Type": value.get("Type")}, place, ("Type",), required_members=("Type",)).read_choice(
        "Type", StepType
    )
    facts = STEP_TYPE_FACTS[step_type]
    if facts.alternative:
        raise make_error(place, f"steps of type {step_type} are not supported locally: {facts.alternative}")
    required_members = (
        "Name",
        "Type",
        *facts.required_members,
        *(() if step_type in _TYPES_WITHOUT_ARGUMENTS else ("Arguments",)),
    )
    step = Structure(value, place, (*_STEP_MEMBERS, *facts.members), required_members)
    arguments, contained_steps = _split_arguments(step_type, step)
    return Step(
        step.read_name("Name"),
        step_type,
        arguments,
        display_name=step.read_text("DisplayName"),
        description=step.read_text("Description"),
        depends_on=_read_items(step, "DependsOn", _parse_dependency),
        cache=parse_cache(step.members["CacheConfig"], step.locate_member("CacheConfig"))
        if step.has("CacheConfig")
        else None,
        retry_policies=_read_items(step, "RetryPolicies", parse_retry_policy),
        property_files=_read_items(step, "PropertyFiles", _parse_property_file),
        output_parameters=_read_items(step, "OutputParameters", _parse_output_parameter),
        receiver=_read_receiver(step, facts.required_members[0]) if facts.required_members else None,
        **contained_steps,
    )


_TYPES_WITHOUT_ARGUMENTS = (StepType.LAMBDA, StepType.CALLBACK, StepType.FAIL)
"""Types of steps that need no Arguments."""


def _read_items(step: Structure, member: str, parse: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    places = (f"{step.locate_member(member)}[{index}]" for index in range(len(step.read_list(member))))
    return tuple(parse(item, place) for item, place in zip(step.read_list(member), places, strict=True))


def _read_receiver(step: Structure, member: str) -> Any:
    """Return FunctionArn or SqsQueueUrl, which may be an expression."""
    value = step.members[member]
    if not isinstance(value, str | dict):
        raise make_error(step.locate_member(member), f"expected a String, found {get_type_name(value)}")
    return value


def _parse_dependency(value: Any, place: str) -> Dependency:
    if isinstance(value, str):
        return Dependency(value)
    entry = Structure(value, place, ("Step", "Trigger"), required_members=("Step", "Trigger"))
    return Dependency(entry.read_text("Step"), entry.read_choice("Trigger", Trigger))


def _parse_property_file(value: Any, place: str) -> PropertyFile:
    members = ("PropertyFileName", "OutputName", "FilePath")
    return PropertyFile(
        *(Structure(value, place, members, required_members=members).read_text(member) for member in members)
    )


def _parse_output_parameter(value: Any, place: str) -> OutputParameter:
    members = ("OutputName", "OutputType")
    output = Structure(value, place, members, required_members=members)
    return OutputParameter(output.read_text("OutputName"), output.read_choice("OutputType", ParameterType))


# --- steps that contain other steps ---


def _split_arguments(step_type: StepType, step: Structure) -> tuple[Mapping[str, Any], dict[str, tuple[Step, ...]]]:
    """Return the arguments of a step without the contained steps. Also return the contained steps, by the name of the
    field of `Step` that holds them, such as `if_steps`."""
    if step_type is StepType.CONDITION:
        return _split_condition(
            Structure(step.read_object("Arguments"), step.locate_member("Arguments"), _CONDITION_MEMBERS)
        )
    if step_type is StepType.FOR_EACH:
        return _split_loop(
            Structure(
                step.read_object("Arguments"),
                step.locate_member("Arguments"),
                _LOOP_MEMBERS,
                required_members=_REQUIRED_LOOP_MEMBERS,
            )
        )
    if step_type is StepType.CLEANUP:
        _check_cleanup(Structure(step.read_object("Arguments"), step.locate_member("Arguments"), ("Resources",)))
    if step_type is StepType.FAIL:
        Structure(step.read_object("Arguments"), step.locate_member("Arguments"), ("ErrorMessage",))
    return step.read_object("Arguments"), {}


_CONDITION_MEMBERS = ("Conditions", "IfSteps", "ElseSteps")
_REQUIRED_LOOP_MEMBERS = ("IterableItems", "MaxConcurrency", "ForEachBody")
_LOOP_MEMBERS = (*_REQUIRED_LOOP_MEMBERS, "Selector")
_TYPES_FORBIDDEN_IN_LOOPS = (StepType.CONDITION, StepType.FAIL, StepType.FOR_EACH)


def _split_condition(arguments: Structure) -> tuple[Mapping[str, Any], dict[str, tuple[Step, ...]]]:
    conditions = arguments.read_list("Conditions")
    for index, condition in enumerate(conditions):
        try:
            check_condition(condition)
        except ExpressionError as error:
            raise make_error(f"{arguments.place}.Conditions[{index}]", str(error)) from error
    branches = {"if_steps": _parse_steps(arguments, "IfSteps"), "else_steps": _parse_steps(arguments, "ElseSteps")}
    return {"Conditions": conditions}, branches


def _parse_steps(arguments: Structure, member: str) -> tuple[Step, ...]:
    steps = arguments.read_list(member)
    return tuple(parse_step(step, f"{arguments.place}.{member}[{index}]") for index, step in enumerate(steps))


def _split_loop(arguments: Structure) -> tuple[Mapping[str, Any], dict[str, tuple[Step, ...]]]:
    arguments.read_number("MaxConcurrency", minimum=1, maximum=MAX_CONCURRENCY)
    _check_items(arguments)
    if arguments.has("Selector"):
        _check_selector(arguments)
    body = _parse_steps(arguments, "ForEachBody")
    if not body:
        raise make_error(arguments.locate_member("ForEachBody"), "a loop must have at least one step")
    for step in body:
        if step.type in _TYPES_FORBIDDEN_IN_LOOPS:
            raise make_error(f"step {quote(step.name)}", f"a ForEach step cannot contain a step of type {step.type}")
    members = {name: value for name, value in arguments.members.items() if name != "ForEachBody"}
    return members, {"body": body}


def _check_items(arguments: Structure) -> None:
    items = arguments.members["IterableItems"]
    if not isinstance(items, dict | list):
        problem = f"expected an expression or an array, found {get_type_name(items)}"
        raise make_error(arguments.locate_member("IterableItems"), problem)
    if isinstance(items, list) and not 1 <= len(items) <= MAX_ITEMS:
        problem = f"expected 1 to {MAX_ITEMS} items, found {len(items)}"
        raise make_error(arguments.locate_member("IterableItems"), problem)


def _check_selector(arguments: Structure) -> None:
    selector = Structure(
        arguments.members["Selector"],
        arguments.locate_member("Selector"),
        ("Pick", "Field"),
        required_members=("Pick", "Field"),
    )
    if selector.read_text("Pick") not in ("MaxBy", "MinBy"):
        raise make_error(
            selector.locate_member("Pick"), f"expected MaxBy or MinBy, found {quote(selector.members['Pick'])}"
        )


def _check_cleanup(arguments: Structure) -> None:
    resources = Structure(
        arguments.read_object("Resources"), arguments.locate_member("Resources"), ("S3",), required_members=("S3",)
    )
    if not resources.read_list("S3"):
        raise make_error(resources.locate_member("S3"), "a Cleanup step must have at least one source")
    for index, source in enumerate(resources.read_list("S3")):
        entry = Structure(
            source, f"{resources.locate_member('S3')}[{index}]", ("StepName", "S3Uris"), required_members=("StepName",)
        )
        entry.read_text("StepName")
        entry.read_list("S3Uris")
