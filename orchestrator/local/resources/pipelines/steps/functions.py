"""Lambda steps, which run functions of `microjobs.toml`."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.functions import FunctionError, FunctionRun
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import Scope, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.messages import make_name_hint
from microjobs_orchestrator.local.resources.pipelines.definition.values import Step
from microjobs_orchestrator.local.resources.pipelines.step_run import OUTPUTS, Failure, StepChange, StepRun, StepStatus
from microjobs_orchestrator.local.resources.pipelines.steps.outputs import OutputError, describe_outputs, read_outputs
from microjobs_orchestrator.local.resources.pipelines.steps.runner import Runner, Tools


class LambdaRunner(Runner):
    """Runs Lambda steps. If the server is killed while a function runs, the next server calls the function again."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._running_functions: dict[str, FunctionRun] = {}
        """The functions that this server runs, by the names of the steps."""
        self._results: dict[str, StepChange] = {}
        """The results of ended functions that `poll` has not returned yet, by the names of the steps."""

    def resolve(self, step: Step, scope: Scope) -> Mapping[str, Any]:
        return {"FunctionArn": resolve(step.receiver, scope), "Event": super().resolve(step, scope)}

    def start(self, run: StepRun, arguments: Mapping[str, Any]) -> StepChange:
        arn = str(arguments["FunctionArn"])
        variables = self.tools.context.make_access_variables()
        try:
            function = FunctionRun(self._find_command(arn), arn, arguments["Event"], variables)
        except FunctionError as error:
            return StepChange(StepStatus.FAILED, {"Lambda": {"Arn": arn}}, Failure(f"ClientError: {error}"))
        self._running_functions[run.name] = function
        threading.Thread(
            target=partial(self._wait, function, run.step, arn), name=f"lambda/{run.name}", daemon=True
        ).start()
        return StepChange(StepStatus.EXECUTING, {"Lambda": {"Arn": arn}})

    def _find_command(self, arn: str) -> str:
        """Return the command of a function, by its ARN or by the name in the ARN."""
        functions = self.tools.context.settings.functions
        name = arn.partition(":function:")[2].partition(":")[0] or arn
        for key in (arn, name):
            if key in functions:
                return functions[key]
        raise ValidationError(
            f'The function {name} has no command: add `{name} = "COMMAND"` to [local.functions] of microjobs.toml '
            f"({make_name_hint(name, functions)})."
        )

    def _wait(self, function: FunctionRun, step: Step, arn: str) -> None:
        """Store the result of a function, and wake the execution."""
        try:
            outputs = read_outputs(step, function.wait())
            metadata = {"Lambda": {"Arn": arn, "OutputParameters": describe_outputs(outputs)}}
            result = StepChange(StepStatus.SUCCEEDED, metadata, internal={OUTPUTS: outputs})
        except (FunctionError, OutputError) as error:
            result = StepChange(StepStatus.FAILED, {"Lambda": {"Arn": arn}}, Failure(f"ClientError: {arn}: {error}"))
        self._results[step.name] = result
        self.tools.notify()

    def is_lost(self, run: StepRun) -> bool:
        return run.name not in self._running_functions

    def poll(self, run: StepRun) -> StepChange:
        result = self._results.pop(run.name, None)
        if result is None:
            return StepChange(run.status, run.metadata)
        del self._running_functions[run.name]
        was_stopped = run.status is StepStatus.STOPPING and result.status is StepStatus.FAILED
        return StepChange(StepStatus.STOPPED, result.metadata) if was_stopped else result

    def stop(self, run: StepRun) -> StepChange:
        function = self._running_functions.get(run.name)
        if function is None:
            return StepChange(StepStatus.STOPPED, run.metadata)
        function.stop()
        return StepChange(StepStatus.STOPPING, run.metadata)

    def read_properties(self, run: StepRun) -> Mapping[str, Any]:
        return {"OutputParameters": run.record.internal[OUTPUTS]}
