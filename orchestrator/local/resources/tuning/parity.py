"""Parity rows of hyperparameter tuning jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity import common
from microjobs_orchestrator.local.parity.common import make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows
from microjobs_orchestrator.local.resources.training.parity import ALGORITHM, DEFINITION, RESOURCES

RANGE = Members(make_honoured_rows("Name", "MinValue", "MaxValue", "ScalingType"))
ONE_DEFINITION = Refused(
    "this member is for several definitions, which are not supported: use HyperParameterTuningJobConfig"
)

HYPERBAND: Rows = {
    "MinResource": Honoured("number of objective values that a job prints before it may be stopped"),
    "MaxResource": Honoured("a job that prints more values is stopped"),
}

COMPLETION_CRITERIA: Rows = {
    **make_honoured_rows("TargetObjectiveMetricValue"),
    "BestObjectiveNotImproving": Members(make_honoured_rows("MaxNumberOfTrainingJobsNotImproving")),
    "ConvergenceDetected": Members(
        {
            "CompleteOnConvergence": Honoured(
                "a job does not end by convergence", values=("Disabled",), reason="use BestObjectiveNotImproving"
            )
        }
    ),
}

CONFIG: Rows = {
    "Strategy": Honoured("Optuna implements Bayesian and Hyperband"),
    "StrategyConfig": Members({"HyperbandStrategyConfig": Members(HYPERBAND)}),
    "HyperParameterTuningJobObjective": Members(
        {"Type": Honoured(), "MetricName": Honoured("the name of one of the MetricDefinitions")}, required=True
    ),
    "ResourceLimits": Members(
        {
            "MaxNumberOfTrainingJobs": Honoured(maximum=750, reason="SageMaker's own limit"),
            "MaxParallelTrainingJobs": Honoured(maximum=100, reason=common.ONE_MACHINE_REASON),
            "MaxRuntimeInSeconds": Honoured("limit for the tuning job, not for each training job"),
        }
    ),
    "ParameterRanges": Members(
        {
            "IntegerParameterRanges": RANGE,
            "ContinuousParameterRanges": RANGE,
            "CategoricalParameterRanges": Members(make_honoured_rows("Name", "Values")),
            "AutoParameters": Refused("use a range"),
        }
    ),
    "TrainingJobEarlyStoppingType": Honoured("Auto stops a job that is worse than the median"),
    "TuningJobCompletionCriteria": Members(COMPLETION_CRITERIA),
    **make_honoured_rows("RandomSeed"),
}

CREATE: Rows = {
    **make_honoured_rows("HyperParameterTuningJobName"),
    "HyperParameterTuningJobConfig": Members(CONFIG),
    "TrainingJobDefinition": Members(
        {
            "DefinitionName": NoEffect("only one definition is supported, which needs no name"),
            **dict.fromkeys(("TuningObjective", "HyperParameterRanges"), ONE_DEFINITION),
            "StaticHyperParameters": Honoured("written to hyperparameters.json with the tuned hyperparameters"),
            "AlgorithmSpecification": Members(ALGORITHM),
            **DEFINITION,
            "ResourceConfig": Members(RESOURCES),
            "HyperParameterTuningResourceConfig": Members(
                {**common.CLUSTER, **dict.fromkeys(("AllocationStrategy", "InstanceConfigs"), common.ONE_TYPE)}
            ),
        },
        required=True,
    ),
    "TrainingJobDefinitions": Refused("only one definition is supported: start one tuning job for each definition"),
    "WarmStartConfig": Members(
        {
            "ParentHyperParameterTuningJobs": Members({"HyperParameterTuningJobName": Honoured(required=True)}),
            "WarmStartType": Honoured("the search uses the parents' results whose hyperparameters lie in its ranges"),
        }
    ),
    "Tags": common.TAGS,
    "Autotune": Refused("use ranges and limits"),
}

ROWS: Mapping[str, Rows] = {
    "CreateHyperParameterTuningJob": CREATE,
    "ListTrainingJobsForHyperParameterTuningJob": make_honoured_rows(
        *common.PAGE_MEMBERS, "HyperParameterTuningJobName", "StatusEquals"
    ),
}
