"""MLflow tracking of executions: MlflowConfig of a definition, and MlflowExperimentName of StartPipelineExecution.

AWS documents the members, but not their effect. On this server, the runs of all Training steps are in one
experiment, and Processing steps get the environment variables with which MLflow finds it.
"""

import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow import requests
from microjobs_orchestrator.local.resources.operations import Request
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition, Scalar, StepType
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, StepScope, make_variables
from microjobs_orchestrator.local.resources.training.mlflow_run import make_variables as make_mlflow_variables

CONFIG = "MLflowConfig"
"""The member of an execution's description. Requests spell it differently."""
ARN, EXPERIMENT = "MlflowResourceArn", "MlflowExperimentName"


def read_config(
    context: Context, definition: Definition, request: Request, arn: str, parameters: Mapping[str, Scalar]
) -> dict[str, Any]:
    """Return the member MLflowConfig of a new execution's description; {} if MLflow does not track the execution.

    Args:
        request: the request of StartPipelineExecution, whose experiment replaces that of the definition.
        arn: the ARN of the execution.

    Raises:
        ValidationError: the MLflow server is not running, or only the request has an experiment.
    """
    variables = make_variables(arn, time.time())
    scope = StepScope(ExecutionValues(definition, context.store, parameters, variables, _refuse_properties))
    config = {name: str(resolve(value, scope)) for name, value in (definition.mlflow or {}).items() if value}
    chosen = request.get(EXPERIMENT)
    if ARN not in config:
        if chosen is None:
            return {}
        problem = f"{EXPERIMENT} {chosen!r} has no MLflow server: the definition of the pipeline has no MlflowConfig"
        raise ValidationError(f"{problem} with {ARN}.")
    requests.find_running(context, config[ARN])
    return {CONFIG: {ARN: config[ARN], EXPERIMENT: chosen or config.get(EXPERIMENT, variables["PipelineName"])}}


def _refuse_properties(step_name: str) -> Mapping[str, Any]:
    raise ExpressionError(f"step {step_name} has not started")


def add_config(
    request: Mapping[str, Any], step_type: StepType, step_name: str, config: Mapping[str, str] | None
) -> Mapping[str, Any]:
    """Return the Create request of a step with the execution's MLflowConfig. The step's own arguments take precedence.

    Args:
        config: the MLflowConfig; None if MLflow does not track the execution.
    """
    if config is None:
        return request
    if step_type is StepType.TRAINING:
        return {"MlflowConfig": {**config, "MlflowRunName": step_name}, **request}
    if step_type is StepType.PROCESSING:
        variables = make_mlflow_variables(config[ARN], config[EXPERIMENT])
        return {**request, "Environment": {**variables, **request.get("Environment", {})}}
    return request
