"""Callback steps: they send a message with a token to a queue, and wait for an answer with this token."""

import json
import secrets
import string
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.queues import get_queue_name
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import Scope, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    EXECUTION_KIND,
    OUTPUTS,
    REQUEST,
    Failure,
    StepChange,
    StepRun,
    StepStatus,
)
from microjobs_orchestrator.local.resources.pipelines.steps.outputs import OutputError, describe_outputs, read_outputs
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner
from microjobs_orchestrator.local.state import Owner, Query, Record, State

CALLBACK_KIND = "pipeline-callback"
"""Kind of the records that store tokens. The owner of each record is the execution."""
TOKEN_CHARACTERS = 10
ANSWER = "Answer"
"""Key in the internal state of a token's record. Its value is an object with the key `Outputs` or `FailureReason`."""

_ALPHABET = string.ascii_letters + string.digits


class CallbackRunner(Runner):
    """Runs Callback steps."""

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        return {"SqsQueueUrl": resolve(step.receiver, scope), "Arguments": super().resolve(step, scope)}

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:
        """Send the message. After a crash, the next server sends it again, with the same token."""
        if run.record.internal.get(REQUEST) is None:
            token = "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_CHARACTERS))
            run.store(StepChange(StepStatus.STARTING, internal={REQUEST: {**arguments, "Token": token}}))
        request = run.record.internal[REQUEST]
        owner = Owner(EXECUTION_KIND, self.tools.execution_id)
        if self._state.get(CALLBACK_KIND, request["Token"]) is None:
            self._state.add(CALLBACK_KIND, request["Token"], "", "", {}, {}, owner=owner)
        self._send(request, "Executing")
        metadata = {"CallbackToken": request["Token"], "SqsQueueUrl": str(request["SqsQueueUrl"])}
        return StepChange(StepStatus.EXECUTING, {"Callback": metadata})

    @property
    def _state(self) -> State:
        return self.tools.context.state

    def _send(self, request: Mapping[str, Any], status: str) -> None:
        """Send a message to the queue. Create the queue if it does not exist."""
        name = get_queue_name(str(request["SqsQueueUrl"]))
        self._state.queues.create(name)
        message = {
            "token": request["Token"],
            "pipelineExecutionArn": self.tools.execution_arn,
            "arguments": request["Arguments"],
            "status": status,
        }
        self._state.queues.send(name, json.dumps(message))

    def poll(self, run: StepRun) -> StepChange:
        record = self._state.get(CALLBACK_KIND, run.record.internal[REQUEST]["Token"])
        answer = record.internal.get(ANSWER) if record else None
        if answer is None:
            return StepChange(run.status, run.metadata)
        if "FailureReason" in answer:
            return StepChange(StepStatus.FAILED, run.metadata, Failure(answer["FailureReason"]))
        try:
            outputs = read_outputs(run.step, answer["Outputs"])
        except OutputError as error:
            return StepChange(StepStatus.FAILED, run.metadata, Failure(f"ClientError: {error}"))
        callback = {**run.metadata["Callback"], "OutputParameters": describe_outputs(outputs)}
        return StepChange(StepStatus.SUCCEEDED, {"Callback": callback}, internal={OUTPUTS: outputs})

    def stop(self, run: StepRun) -> StepChange:
        """Send a message about the stop to the queue, and stop without waiting for an answer."""
        request = run.record.internal.get(REQUEST)
        if request is not None:
            self._send(request, "Stopping")
            self._state.delete(CALLBACK_KIND, request["Token"])
        return StepChange(StepStatus.STOPPED, run.metadata)

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        return {"OutputParameters": run.record.internal[OUTPUTS]}


def delete_callbacks(state: State, execution_id: str) -> None:
    """Delete the tokens of an execution that is deleted."""
    query = Query(CALLBACK_KIND, owner=Owner(EXECUTION_KIND, execution_id))
    while records := state.find(query):
        for record in records:
            state.delete(CALLBACK_KIND, record.name)


def answer_callback(state: State, token: str, answer: Mapping[str, Any]) -> Record | None:
    """Store the answer to a callback; return the record of the token.

    Return None if no step waits for an answer with this token.
    """
    # The record has no status until the first answer. Later answers are refused.
    return state.update(CALLBACK_KIND, token, {}, "Answered", internal={ANSWER: answer}, only_if=("",))
