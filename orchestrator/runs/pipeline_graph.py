"""The steps of a pipeline's definition, with the steps that they wait for, and a table of their states."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.runs.kinds import Members
from microjobs_orchestrator.terminal import strip_controls

LOOP_BRANCH = "each"
BRANCHES = {"IfSteps": "if", "ElseSteps": "else", "ForEachBody": LOOP_BRANCH}
"""The word in front of a nested step, by the member of Arguments that contains the nested steps."""

PARENT_STEP_TYPES = ("Condition", "ForEach")
"""The types of steps that contain other steps. The arguments of other types may have the names in `BRANCHES`, too."""

SYMBOLS = {
    "Succeeded": ("✓", "green"),
    "Failed": ("✗", "red"),
    "Stopped": ("■", "yellow"),
    "Executing": ("▶", "cyan"),
    "Starting": ("▶", "cyan"),
    "Stopping": ("■", "yellow"),
}
NOT_STARTED = ("·", "dim")


@dataclass(frozen=True)
class Node:
    """A step of a definition."""

    name: str
    type: str
    dependencies: tuple[str, ...]
    """The steps whose end the step waits for."""
    depth: int = 0
    """The number of steps that contain the step."""
    branch: str = ""
    """The part of the containing step, such as `if`."""


def list_nodes(definition: str) -> list[Node]:
    """Return all steps of a definition in JSON. A nested step comes after the step that contains it."""
    return list(_list_nodes(json.loads(definition)["Steps"], depth=0, branch=""))


def _list_nodes(steps: Sequence[Members], depth: int, branch: str) -> Iterator[Node]:
    for step in steps:
        arguments = step.get("Arguments") or {}
        members = BRANCHES if step["Type"] in PARENT_STEP_TYPES else ()
        nested = {member: arguments[member] for member in members if arguments.get(member)}
        own_members = {name: value for name, value in step.items() if name != "Arguments"}
        own_members["Arguments"] = {name: value for name, value in arguments.items() if name not in nested}
        yield Node(step["Name"], step["Type"], tuple(dict.fromkeys(_list_dependencies(own_members))), depth, branch)
        for member, children in nested.items():
            yield from _list_nodes(children, depth + 1, BRANCHES[member])


def _list_dependencies(step: Members) -> Iterator[str]:
    """Yield the names of the steps in DependsOn and in expressions."""
    for name, value in step.items():
        if name == "DependsOn":
            yield from (entry if isinstance(entry, str) else entry["Step"] for entry in value)
        else:
            yield from _list_references(value)


def _list_references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _list_references(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "Get" and isinstance(item, str) and item.startswith("Steps."):
                yield item.split(".")[1].partition("[")[0]
            else:
                yield from _list_references(item)


def make_table(nodes: Sequence[Node], states: Mapping[str, Members], now: datetime | None = None) -> Table:
    """Return one row per step: symbol and name, type, status, duration, and the steps that it waits for.

    Args:
        states: items of ListPipelineExecutionSteps by step name; empty for a pipeline that has not run.
        now: the current time, for steps that run.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("step", "type", "status", "took", "after"):
        table.add_column(column, no_wrap=column != "after")
    for node in _expand(nodes, states):
        state = states.get(node.name, {})
        symbol, style = SYMBOLS.get(state.get("StepStatus", ""), NOT_STARTED)
        branch = f"{node.branch}: " if node.branch else ""
        name = Text.assemble("  " * node.depth, (f"{symbol} ", style), (branch, "dim"), node.name)
        status = Text(strip_controls(_describe_state(state)))
        table.add_row(
            name, node.type, status, _format_time(state, now or datetime.now(UTC)), ", ".join(node.dependencies)
        )
    return table


def list_failures(states: Mapping[str, Members], reason: str) -> list[str]:
    """Return the reasons of failed steps; if there are none, the `reason` of the execution."""
    failures = [f"{name}: {state['FailureReason']}" for name, state in states.items() if state.get("FailureReason")]
    return [strip_controls(line) for line in failures or filter(None, [reason])]


def _expand(nodes: Sequence[Node], states: Mapping[str, Members]) -> Iterator[Node]:
    """Yield the nodes. A step in the body of a ForEach step becomes one node per item that has started."""
    for node in nodes:
        pattern = re.compile(rf"{re.escape(node.name)}-(\d+)")
        iterations = sorted(int(match[1]) for match in map(pattern.fullmatch, states) if match)
        if node.branch == LOOP_BRANCH and iterations:
            yield from (replace(node, name=f"{node.name}-{iteration}") for iteration in iterations)
        else:
            yield node


def _describe_state(state: Members) -> str:
    """Return a step's status, with the source of a cached result, the outcome of a condition, or the attempt."""
    status: str = state.get("StepStatus", "")
    if source := state.get("CacheHitResult", {}).get("SourcePipelineExecutionArn"):
        return f"{status}, cached from {source.rpartition('/')[2]}"
    if outcome := state.get("Metadata", {}).get("Condition", {}).get("Outcome"):
        return f"{status}, {outcome.lower()}"
    attempts = state.get("AttemptCount", 1)
    return f"{status}, attempt {attempts}" if attempts > 1 else status


def _format_time(state: Members, now: datetime) -> str:
    if "StartTime" not in state:
        return ""
    return format_duration((state.get("EndTime", now) - state["StartTime"]).total_seconds())
