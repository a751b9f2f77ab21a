"""The SDK's classes and methods for tuning jobs, models and endpoints, and the table of all kinds."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.console.code.expressions import Name
from microjobs_orchestrator.local.console.code.sdk_v2 import (
    ArgumentSource,
    CallSource,
    ConstantSource,
    ListSource,
    MemberSource,
    MergedSource,
    NumberSource,
    Program,
    RemainingMembers,
)
from microjobs_orchestrator.local.console.code.sdk_v2_jobs import (
    NO_WAIT,
    PROCESSING,
    TRAINING,
    TRAINING_INPUT,
    TRANSFORM,
    make_estimator,
    map_members,
)

CONFIG_PREFIX = "HyperParameterTuningJobConfig."
DEFINITION_PREFIX = "TrainingJobDefinition."


def _make_range_source(type_name: str) -> ListSource:
    """Return the source of the ranges of one type of hyperparameters, such as `Integer`."""
    arguments: dict[str, ArgumentSource] = {
        "min_value": NumberSource("MinValue"),
        "max_value": NumberSource("MaxValue"),
        "scaling_type": MemberSource("ScalingType"),
    }
    item = CallSource(f"{type_name}Parameter", arguments, "sagemaker.parameter")
    return ListSource(f"{CONFIG_PREFIX}ParameterRanges.{type_name}ParameterRanges", item, key="Name")


CATEGORICAL_RANGES = ListSource(
    f"{CONFIG_PREFIX}ParameterRanges.CategoricalParameterRanges",
    CallSource("CategoricalParameter", map_members(values="Values"), "sagemaker.parameter"),
    key="Name",
)
HYPERBAND = CallSource(
    "HyperbandStrategyConfig",
    map_members(
        f"{CONFIG_PREFIX}StrategyConfig.HyperbandStrategyConfig.",
        max_resource="MaxResource",
        min_resource="MinResource",
    ),
    "sagemaker.tuner",
)
TUNER = CallSource(
    "HyperparameterTuner",
    {
        "estimator": ConstantSource(Name("estimator")),
        **map_members(
            CONFIG_PREFIX,
            objective_metric_name="HyperParameterTuningJobObjective.MetricName",
            objective_type="HyperParameterTuningJobObjective.Type",
            strategy="Strategy",
            max_jobs="ResourceLimits.MaxNumberOfTrainingJobs",
            max_parallel_jobs="ResourceLimits.MaxParallelTrainingJobs",
            max_runtime_in_seconds="ResourceLimits.MaxRuntimeInSeconds",
            early_stopping_type="TrainingJobEarlyStoppingType",
            random_seed="RandomSeed",
        ),
        "metric_definitions": MemberSource(f"{DEFINITION_PREFIX}AlgorithmSpecification.MetricDefinitions"),
        "hyperparameter_ranges": MergedSource(
            (CATEGORICAL_RANGES, _make_range_source("Continuous"), _make_range_source("Integer"))
        ),
        "strategy_config": CallSource("StrategyConfig", {"hyperband_strategy_config": HYPERBAND}, "sagemaker.tuner"),
        "tags": MemberSource("Tags"),
    },
    "sagemaker.tuner",
    required_members=(
        f"{CONFIG_PREFIX}HyperParameterTuningJobObjective",
        f"{CONFIG_PREFIX}ParameterRanges",
        f"{CONFIG_PREFIX}ResourceLimits.MaxNumberOfTrainingJobs",
    ),
)
TUNING = Program(
    (
        (
            "estimator",
            make_estimator(
                prefix=DEFINITION_PREFIX,
                resources_member="HyperParameterTuningResourceConfig",
                hyperparameters_member="StaticHyperParameters",
                more_arguments={},
            ),
        ),
        ("tuner", TUNER),
        (
            "",
            CallSource(
                "tuner.fit",
                {
                    "inputs": ListSource(f"{DEFINITION_PREFIX}InputDataConfig", TRAINING_INPUT, key="ChannelName"),
                    "job_name": MemberSource("HyperParameterTuningJobName"),
                    **NO_WAIT,
                },
            ),
        ),
    ),
    "HyperparameterTuner",
)


class ContainerDefinitionsSource:
    """The source of the argument `container_defs`.

    `Session.create_model` sends a model package in Containers, even if the model has only one container. Therefore, no
    argument expresses a PrimaryContainer with a model package, and the program sends the request with the SDK's client.
    """

    def take_argument(self, members: RemainingMembers) -> Any:
        container = members.get("PrimaryContainer")
        is_primary = container is not None and "ModelPackageName" not in container
        return members.take("PrimaryContainer" if is_primary else "Containers")


def _make_session_program(
    method: str, more_arguments: Mapping[str, ArgumentSource] | None = None, /, **paths: str
) -> Program:
    """Return a program that calls a method of the session."""
    call = CallSource(f"session.{method}", {**map_members(**paths), **(more_arguments or {})})
    return Program((("", call),), f"Session.{method}")


PROGRAMS: Mapping[str, Program] = {
    "HyperParameterTuningJob": TUNING,
    "ProcessingJob": PROCESSING,
    "TrainingJob": TRAINING,
    "TransformJob": TRANSFORM,
    "Model": _make_session_program(
        "create_model",
        {"container_defs": ContainerDefinitionsSource()},
        name="ModelName",
        role="ExecutionRoleArn",
        vpc_config="VpcConfig",
        enable_network_isolation="EnableNetworkIsolation",
        tags="Tags",
    ),
    "EndpointConfig": _make_session_program(
        "create_endpoint_config",
        name="EndpointConfigName",
        production_variants="ProductionVariants",
        data_capture_config_dict="DataCaptureConfig",
        async_inference_config_dict="AsyncInferenceConfig",
        kms_key="KmsKeyId",
        tags="Tags",
    ),
    "Endpoint": _make_session_program(
        "create_endpoint",
        NO_WAIT,
        endpoint_name="EndpointName",
        config_name="EndpointConfigName",
        tags="Tags",
    ),
}
"""Programs by the noun of the resource's kind in operations, such as the `Model` of CreateModel. For all other kinds,
the code uses the boto3 client of the SDK's session."""
