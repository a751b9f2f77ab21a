"""The SDK's classes and methods for tuning jobs, models and endpoints, and the table of all kinds."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.console.code.expressions import Name
from microjobs_orchestrator.local.console.code.sdk_v2 import (
    Constant,
    Each,
    Member,
    Members,
    Merged,
    New,
    Number,
    Program,
    Source,
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

CONFIG = "HyperParameterTuningJobConfig."
DEFINITION = "TrainingJobDefinition."


def _make_range(noun: str) -> Each:
    """Return the ranges of one type of hyperparameters, by their names."""
    arguments: dict[str, Source] = {
        "min_value": Number("MinValue"),
        "max_value": Number("MaxValue"),
        "scaling_type": Member("ScalingType"),
    }
    item = New(f"{noun}Parameter", arguments, "sagemaker.parameter")
    return Each(f"{CONFIG}ParameterRanges.{noun}ParameterRanges", item, key="Name")


CATEGORIES = Each(
    f"{CONFIG}ParameterRanges.CategoricalParameterRanges",
    New("CategoricalParameter", map_members(values="Values"), "sagemaker.parameter"),
    key="Name",
)
HYPERBAND = New(
    "HyperbandStrategyConfig",
    map_members(
        f"{CONFIG}StrategyConfig.HyperbandStrategyConfig.", max_resource="MaxResource", min_resource="MinResource"
    ),
    "sagemaker.tuner",
)
TUNER = New(
    "HyperparameterTuner",
    {
        "estimator": Constant(Name("estimator")),
        **map_members(
            CONFIG,
            objective_metric_name="HyperParameterTuningJobObjective.MetricName",
            objective_type="HyperParameterTuningJobObjective.Type",
            strategy="Strategy",
            max_jobs="ResourceLimits.MaxNumberOfTrainingJobs",
            max_parallel_jobs="ResourceLimits.MaxParallelTrainingJobs",
            max_runtime_in_seconds="ResourceLimits.MaxRuntimeInSeconds",
            early_stopping_type="TrainingJobEarlyStoppingType",
            random_seed="RandomSeed",
        ),
        "metric_definitions": Member(f"{DEFINITION}AlgorithmSpecification.MetricDefinitions"),
        "hyperparameter_ranges": Merged((CATEGORIES, _make_range("Continuous"), _make_range("Integer"))),
        "strategy_config": New("StrategyConfig", {"hyperband_strategy_config": HYPERBAND}, "sagemaker.tuner"),
        "tags": Member("Tags"),
    },
    "sagemaker.tuner",
    required=(
        f"{CONFIG}HyperParameterTuningJobObjective",
        f"{CONFIG}ParameterRanges",
        f"{CONFIG}ResourceLimits.MaxNumberOfTrainingJobs",
    ),
)
TUNING = Program(
    (
        ("estimator", make_estimator(DEFINITION, "HyperParameterTuningResourceConfig", "StaticHyperParameters", {})),
        ("tuner", TUNER),
        (
            "",
            New(
                "tuner.fit",
                {
                    "inputs": Each(f"{DEFINITION}InputDataConfig", TRAINING_INPUT, key="ChannelName"),
                    "job_name": Member("HyperParameterTuningJobName"),
                    **NO_WAIT,
                },
            ),
        ),
    ),
    "HyperparameterTuner",
)


class ContainerDefinitions:
    """The containers of a model. For a model package, the method sends Containers, also for a single container."""

    def read(self, members: Members) -> Any:
        primary = members.get("PrimaryContainer")
        is_primary = primary is not None and "ModelPackageName" not in primary
        return members.take("PrimaryContainer" if is_primary else "Containers")


def _make_session_program(method: str, further: Mapping[str, Source] | None = None, /, **paths: str) -> Program:
    """Return a program that calls a method of the session."""
    call = New(f"session.{method}", {**map_members(**paths), **(further or {})})
    return Program((("", call),), f"Session.{method}")


PROGRAMS: Mapping[str, Program] = {
    "HyperParameterTuningJob": TUNING,
    "ProcessingJob": PROCESSING,
    "TrainingJob": TRAINING,
    "TransformJob": TRANSFORM,
    "Model": _make_session_program(
        "create_model",
        {"container_defs": ContainerDefinitions()},
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
"""The calls for the kinds of resources, by their nouns. For other kinds, programs use the SDK's client."""
