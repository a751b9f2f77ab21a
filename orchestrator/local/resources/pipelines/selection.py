"""Selective executions, which run some steps and reuse the results of an earlier execution for the steps before them.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-selective-ex.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.graph import make_graph
from microjobs_orchestrator.local.resources.pipelines.definition.messages import describe_names
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition
from microjobs_orchestrator.local.resources.pipelines.step_run import KIND, Progress, StepStatus
from microjobs_orchestrator.local.state import Record, State

CONFIG = "SelectiveExecutionConfig"
SOURCE = "SourcePipelineExecutionArn"


@dataclass(frozen=True)
class Selection:
    """The steps that an execution runs, and those whose results it reuses."""

    selected: frozenset[str]
    reused: frozenset[str]
    source_arn: str = ""
    """The execution with the results; empty if there is none."""

    def find_result(self, state: State, step: str) -> Record:
        """Return the record of a reused step in the earlier execution.

        Raises:
            ValidationError: the step did not succeed there, or is a ForEach step, whose iterations cannot be reused.
        """
        execution = self.source_arn.rpartition("/")[2]
        record = state.get(KIND, f"{execution}/{step}") if execution else None
        if record is None or record.status != StepStatus.SUCCEEDED:
            where = f"in {self.source_arn}" if execution else f"because {CONFIG} has no {SOURCE}"
            raise ValidationError(
                f"The result of step {step} is needed, but is not available {where}: add the step to SelectedSteps."
            )
        if "ForEach" in record.description.get("Metadata", {}):
            raise ValidationError(f"The results of ForEach step {step} cannot be reused: add it to SelectedSteps.")
        return record

    def make_result(self, record: Record) -> tuple[Progress, Mapping[str, Any]]:
        """Return the progress of a reused step, and members of its description."""
        progress = Progress(StepStatus.SUCCEEDED, record.description.get("Metadata", {}), internal=record.internal)
        return progress, {"SelectiveExecutionResult": {SOURCE: self.source_arn}}


def read_selection(definition: Definition, request: Mapping[str, Any]) -> Selection | None:
    """Return the selection of a StartPipelineExecution request; None if all steps run.

    Raises:
        ValidationError: the pipeline has no step with a selected name.
    """
    if CONFIG not in request:
        return None
    graph = make_graph(definition)
    selected = frozenset(item["StepName"] for item in request[CONFIG]["SelectedSteps"])
    for name in selected:
        if name not in graph:
            raise ValidationError(
                f"SelectedSteps names step {name}, which does not exist ({describe_names(name, graph)})"
            )
    needed: set[str] = set()
    pending = list(selected)
    while pending:
        before = graph.get(pending.pop(), set()) - needed
        needed |= before
        pending += before
    bodies = {inner.name for step in definition.walk() for inner in step.body}  # they run with their ForEach step
    return Selection(selected, frozenset(needed - selected - bodies), request[CONFIG].get(SOURCE, ""))
