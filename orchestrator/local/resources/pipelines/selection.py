"""Selective executions: they run the selected steps. For the steps before these, they reuse the results of an earlier
execution.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-selective-ex.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.pipelines.definition.graph import make_graph
from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_name_hint
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition
from microjobs_orchestrator.local.resources.pipelines.step_run import STEP_KIND, StepChange, StepStatus
from microjobs_orchestrator.local.state import Record, State

CONFIG = "SelectiveExecutionConfig"
SOURCE_ARN = "SourcePipelineExecutionArn"


@dataclass(frozen=True)
class Selection:
    """The steps that an execution runs, and the steps whose results it reuses."""

    selected_steps: frozenset[str]
    reused_steps: frozenset[str]
    source_arn: str = ""
    """The ARN of the execution with the results; empty if no result is reused."""

    def find_result(self, state: State, step: str) -> Record:
        """Return the record of a reused step in the earlier execution.

        Raises:
            ValidationError: the step did not succeed in the earlier execution, or is a ForEach step, whose iterations
                cannot be reused.
        """
        execution = self.source_arn.rpartition("/")[2]
        record = state.get(STEP_KIND, f"{execution}/{step}") if execution else None
        if record is None or record.status != StepStatus.SUCCEEDED:
            where = f"in {self.source_arn}" if execution else f"because {CONFIG} has no {SOURCE_ARN}"
            raise ValidationError(
                f"The result of step {step} is needed, but is not available {where}: add the step to SelectedSteps."
            )
        if "ForEach" in record.description.get("Metadata", {}):
            raise ValidationError(f"The results of ForEach step {step} cannot be reused: add it to SelectedSteps.")
        return record

    def make_reuse_change(self, record: Record) -> tuple[StepChange, Mapping[str, Any]]:
        """Return the change that makes a reused step successful, and members of its description."""
        step_change = StepChange(StepStatus.SUCCEEDED, record.description.get("Metadata", {}), internal=record.internal)
        return step_change, {"SelectiveExecutionResult": {SOURCE_ARN: self.source_arn}}


def read_selection(definition: Definition, request: Mapping[str, Any]) -> Selection | None:
    """Return the selection of a StartPipelineExecution request; None if all steps run.

    Raises:
        ValidationError: the pipeline has no step with a selected name.
    """
    if CONFIG not in request:
        return None
    graph = make_graph(definition)
    selected_names = frozenset(item["StepName"] for item in request[CONFIG]["SelectedSteps"])
    for name in selected_names:
        if name not in graph:
            raise ValidationError(
                f"SelectedSteps names step {name}, which does not exist ({make_name_hint(name, graph)})"
            )
    needed_steps: set[str] = set()
    pending = list(selected_names)
    while pending:
        earlier_steps = graph.get(pending.pop(), set()) - needed_steps
        needed_steps |= earlier_steps
        pending += earlier_steps
    # The steps in bodies need no results of an earlier execution, because they run together with their ForEach step.
    bodies = {inner.name for step in definition.walk() for inner in step.body}
    return Selection(
        selected_names, frozenset(needed_steps - selected_names - bodies), request[CONFIG].get(SOURCE_ARN, "")
    )
