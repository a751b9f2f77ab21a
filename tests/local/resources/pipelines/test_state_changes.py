"""EventBridge events about the steps of pipelines."""

import json
from pathlib import Path

from microjobs_orchestrator.local.resources.pipelines.execution import DEFINITION
from microjobs_orchestrator.local.resources.pipelines.state_changes import find_step_type
from microjobs_orchestrator.local.state import State


def test_step_type_is_found_in_a_loop_and_arguments_that_look_like_steps_are_ignored(tmp_path: Path) -> None:
    call = {"Name": "Call", "Type": "Lambda", "FunctionArn": "f", "OutputParameters": [], "Arguments": {}}
    call["Arguments"] = {"Steps": [{"Name": "Loop", "Type": "Text"}, {"Name": "Call", "Type": "Text"}]}
    arguments = {"IterableItems": [1], "MaxConcurrency": 1, "ForEachBody": [call]}
    loop = {"Name": "Loop", "Type": "ForEach", "Arguments": arguments}
    state = State(tmp_path / "state.db")
    request = {DEFINITION: json.dumps({"Version": "2020-12-01", "Steps": [loop]})}
    execution = state.add("pipeline-execution", "e", "arn", "Executing", request, {})
    assert [find_step_type(execution, name) for name in ("Loop", "Call-0", "Absent")] == ["ForEach", "Lambda", None]
    state.close()
