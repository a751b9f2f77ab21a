"""Properties of Tuning steps."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from microjobs_orchestrator.local.resources.operation_calls import OperationCaller
from microjobs_orchestrator.local.resources.pipelines.definition.values import StepType
from microjobs_orchestrator.local.resources.pipelines.step_run import StepRun
from microjobs_orchestrator.local.resources.pipelines.steps.resources import TuningRunner
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Tools
from tests.local.jobs.conftest import ServerParts

PAGES: Mapping[str, Mapping[str, Any]] = {
    "": {"TrainingJobSummaries": [("a", 2.0), ("b", None)], "NextToken": "next"},
    "next": {"TrainingJobSummaries": [("c", 3.0), ("d", 1.0)]},
}
"""The pages of trials by token. Each trial is a pair: its name, and the final value of its metric, or None."""


@pytest.mark.parametrize(("objective", "names"), [("Minimize", "dac"), ("Maximize", "cad")])
def test_summaries_are_sorted_best_first(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch, objective: str, names: str
) -> None:
    """The SDK's `get_top_model_s3_uri` takes the first summary. A job without a value of the metric is not listed."""

    def call(_: OperationCaller, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        assert request["HyperParameterTuningJobName"] == "tuning"
        if operation.startswith("Describe"):
            return {"HyperParameterTuningJobConfig": {"HyperParameterTuningJobObjective": {"Type": objective}}}
        page = dict(PAGES[request.get("NextToken", "")])
        page["TrainingJobSummaries"] = [
            {"TrainingJobName": name}
            | ({} if value is None else {"FinalHyperParameterTuningJobObjectiveMetric": {"Value": value}})
            for name, value in page["TrainingJobSummaries"]
        ]
        return page

    monkeypatch.setattr(OperationCaller, "call", call)
    operation_caller = OperationCaller(parts.context, parts.registry)
    tools = Tools(
        parts.context,
        parts.registry,
        operation_caller,
        execution_id="id",
        execution_arn="arn",
        mlflow_config=None,
        find_run=lambda _: None,
        notify=lambda: None,
    )
    run = cast("StepRun", SimpleNamespace(record=SimpleNamespace(internal={"Resource": "tuning"})))
    summaries = TuningRunner(tools, StepType.TUNING).read_properties(run)["TrainingJobSummaries"]
    assert "".join(item["TrainingJobName"] for item in summaries) == names
