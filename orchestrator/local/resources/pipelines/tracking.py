"""MLflow tracking of executions: MlflowConfig of a definition, and MlflowExperimentName of StartPipelineExecution.

AWS documents the members, but not their effect. On this server, the runs of all Training steps are in one
experiment, and Processing steps get environment variables that make MLflow use the same experiment.
"""

import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.mlflow import rest_client
from microjobs_orchestrator.local.resources.operations import Request
from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, resolve
from microjobs_orchestrator.local.resources.pipelines.definition.values import Definition, Scalar, StepType
from microjobs_orchestrator.local.resources.pipelines.scope import ExecutionValues, StepScope, make_variables
from microjobs_orchestrator.local.resources.training.mlflow_run import make_variables as make_mlflow_variables

MLFLOW_CONFIG = "MLflowConfig"
"""The member of an execution's description. Requests use another spelling, `MlflowConfig`."""
SERVER_ARN, EXPERIMENT = "MlflowResourceArn", "MlflowExperimentName"


def read_mlflow_config(
    context: Context, definition: Definition, request: Request, arn: str, parameters: Mapping[str, Scalar]
) -> dict[str, Any]:
    """Return the member MLflowConfig of a new execution's description; {} if MLflow does not track the execution.

    Args:
        request: the request of StartPipelineExecution. Its experiment replaces the experiment of the definition.
        arn: the ARN of the execution.

    Raises:
        ValidationError: the MLflow server is not running. Or the request names an experiment, although the definition
            names no MLflow server.
    """
    variables = make_variables(arn, time.time())
    scope = StepScope(ExecutionValues(definition, context.store, parameters, variables, _refuse_properties))
    config = {name: str(resolve(value, scope)) for name, value in (definition.mlflow or {}).items() if value}
    requested_experiment = request.get(EXPERIMENT)
    if SERVER_ARN not in config:
        if requested_experiment is None:
            return {}
        raise ValidationError(
            f"{EXPERIMENT} {requested_experiment!r} has no MLflow server: the definition of the pipeline has no "
            f"MlflowConfig with {SERVER_ARN}."
        )
    rest_client.find_active_server(context, config[SERVER_ARN])
    experiment = requested_experiment or config.get(EXPERIMENT, variables["PipelineName"])
    return {MLFLOW_CONFIG: {SERVER_ARN: config[SERVER_ARN], EXPERIMENT: experiment}}


def _refuse_properties(step_name: str) -> Mapping[str, Any]:
    raise ExpressionError(f"step {step_name} has not started")


def add_mlflow_config(
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
        variables = make_mlflow_variables(config[SERVER_ARN], config[EXPERIMENT])
        return {**request, "Environment": {**variables, **request.get("Environment", {})}}
    return request
