"""Callback steps: they send a message with a token to a queue, and wait for an answer with this token."""

import json
import secrets
import string
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local import queues
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import Scope, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import (
    EXECUTION_KIND,
    OUTPUTS,
    REQUEST,
    Failure,
    Progress,
    StepRun,
    StepStatus,
)
from microjobs_orchestrator.local.resources.pipelines.steps.outputs import OutputError, describe_outputs, read_outputs
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner
from microjobs_orchestrator.local.state import Owner, Query, Record, State

KIND = "pipeline-callback"
"""The kind of the records of tokens; their owner is the execution."""
TOKEN_CHARACTERS = 10
ANSWER = "Answer"
"""Key of a token's internal state: the OutputParameters or the FailureReason of the answer."""

_ALPHABET = string.ascii_letters + string.digits


class CallbackRunner(Runner):
    """Callback steps."""

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        return {"SqsQueueUrl": resolve(step.target, scope), "Arguments": super().resolve(step, scope)}

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> Progress:
        """Send the message. After a crash, the next server sends it again, with the same token."""
        if run.record.internal.get(REQUEST) is None:
            token = "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_CHARACTERS))
            run.store(Progress(StepStatus.STARTING, internal={REQUEST: {**arguments, "Token": token}}))
        request = run.record.internal[REQUEST]
        owner = Owner(EXECUTION_KIND, self.tools.execution)
        if self._state.get(KIND, request["Token"]) is None:
            self._state.add(KIND, request["Token"], "", "", {}, {}, owner=owner)
        self._send(request, "Executing")
        metadata = {"CallbackToken": request["Token"], "SqsQueueUrl": str(request["SqsQueueUrl"])}
        return Progress(StepStatus.EXECUTING, {"Callback": metadata})

    @property
    def _state(self) -> State:
        return self.tools.context.state

    def _send(self, request: Mapping[str, Any], status: str) -> None:
        """Send a message to the queue, which is created if it does not exist."""
        name = queues.get_queue_name(str(request["SqsQueueUrl"]))
        queues.create_queue(self._state, name)
        message = {
            "token": request["Token"],
            "pipelineExecutionArn": self.tools.execution_arn,
            "arguments": request["Arguments"],
            "status": status,
        }
        queues.send(self._state, name, json.dumps(message))

    def poll(self, run: StepRun) -> Progress:
        record = self._state.get(KIND, run.record.internal[REQUEST]["Token"])
        answer = record.internal.get(ANSWER) if record else None
        if answer is None:
            return Progress(run.status, run.metadata)
        if "FailureReason" in answer:
            return Progress(StepStatus.FAILED, run.metadata, Failure(answer["FailureReason"]))
        try:
            outputs = read_outputs(run.step, answer["Outputs"])
        except OutputError as error:
            return Progress(StepStatus.FAILED, run.metadata, Failure(f"ClientError: {error}"))
        callback = {**run.metadata["Callback"], "OutputParameters": describe_outputs(outputs)}
        return Progress(StepStatus.SUCCEEDED, {"Callback": callback}, internal={OUTPUTS: outputs})

    def stop(self, run: StepRun) -> Progress:
        """Send a message about the stop to the queue, and stop without an answer."""
        request = run.record.internal.get(REQUEST)
        if request is not None:
            self._send(request, "Stopping")
            self._state.delete(KIND, request["Token"])
        return Progress(StepStatus.STOPPED, run.metadata)

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        return {"OutputParameters": run.record.internal[OUTPUTS]}


def delete_callbacks(state: State, execution: str) -> None:
    """Delete the tokens of an execution that is deleted."""
    query = Query(KIND, owner=Owner(EXECUTION_KIND, execution))
    while records := state.find(query):
        for record in records:
            state.delete(KIND, record.name)


def answer_callback(state: State, token: str, answer: Mapping[str, Any]) -> Record | None:
    """Store the answer to a callback; return the record of the token.

    Return None if no step waits for an answer with this token.
    """
    return state.update(KIND, token, {}, "Answered", internal={ANSWER: answer}, only_if=("",))
