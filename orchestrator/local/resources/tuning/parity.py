"""Parity rows of hyperparameter tuning jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    HOSTS,
    INSTANCE_TYPE,
    KMS,
    LIST_PAGES,
    ONE_MACHINE,
    ONE_TYPE,
    TAGS,
    VOLUME,
    honoured,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows
from microjobs_orchestrator.local.resources.training.parity import ALGORITHM, DEFINITION, RESOURCES

RANGE = Members(
    {"Name": Honoured(), "MinValue": Honoured(), "MaxValue": Honoured(), "ScalingType": Honoured()},
)
SEVERAL = Refused("one definition: start a tuning job for each")
IN_CONFIG = Refused("for several definitions: give it in HyperParameterTuningJobConfig")

CREATE: Rows = {
    "HyperParameterTuningJobName": Honoured(),
    "HyperParameterTuningJobConfig": Members(
        {
            "Strategy": Honoured("Bayesian and Hyperband search with Optuna"),
            "StrategyConfig": Members(
                {
                    "HyperbandStrategyConfig": Members(
                        {
                            "MinResource": Honoured(
                                "values of the objective metric that a job may give before it is stopped"
                            ),
                            "MaxResource": Honoured("a job that gives more values is stopped"),
                        }
                    )
                }
            ),
            "HyperParameterTuningJobObjective": Members(
                {"Type": Honoured(), "MetricName": Honoured("of MetricDefinitions")}, required=True
            ),
            "ResourceLimits": Members(
                {
                    "MaxNumberOfTrainingJobs": Honoured(maximum=750, reason="SageMaker's own limit"),
                    "MaxParallelTrainingJobs": Honoured(maximum=100, reason=ONE_MACHINE),
                    "MaxRuntimeInSeconds": Honoured("of the tuning job"),
                }
            ),
            "ParameterRanges": Members(
                {
                    "IntegerParameterRanges": RANGE,
                    "ContinuousParameterRanges": RANGE,
                    "CategoricalParameterRanges": Members({"Name": Honoured(), "Values": Honoured()}),
                    "AutoParameters": Refused("give the range"),
                }
            ),
            "TrainingJobEarlyStoppingType": Honoured("Auto stops a job that is worse than the median"),
            "TuningJobCompletionCriteria": Members(
                {
                    "TargetObjectiveMetricValue": Honoured(),
                    "BestObjectiveNotImproving": Members({"MaxNumberOfTrainingJobsNotImproving": Honoured()}),
                    "ConvergenceDetected": Members(
                        {
                            "CompleteOnConvergence": Honoured(
                                "does nothing", values=("Disabled",), reason="use BestObjectiveNotImproving"
                            )
                        }
                    ),
                }
            ),
            "RandomSeed": Honoured(),
        }
    ),
    "TrainingJobDefinition": Members(
        {
            "DefinitionName": NoEffect("there is one definition"),
            "TuningObjective": IN_CONFIG,
            "HyperParameterRanges": IN_CONFIG,
            "StaticHyperParameters": Honoured("with the tuned ones, hyperparameters.json"),
            "AlgorithmSpecification": Members(ALGORITHM),
            **DEFINITION,
            "ResourceConfig": Members(RESOURCES),
            "HyperParameterTuningResourceConfig": Members(
                {
                    "InstanceType": INSTANCE_TYPE,
                    "InstanceCount": HOSTS,
                    "VolumeSizeInGB": VOLUME,
                    "VolumeKmsKeyId": KMS,
                    "AllocationStrategy": ONE_TYPE,
                    "InstanceConfigs": ONE_TYPE,
                }
            ),
        },
        required=True,
    ),
    "TrainingJobDefinitions": SEVERAL,
    "WarmStartConfig": Members(
        {
            "ParentHyperParameterTuningJobs": Members({"HyperParameterTuningJobName": Honoured(required=True)}),
            "WarmStartType": Honoured("the search knows of the parents' training jobs that lie in its ranges"),
        }
    ),
    "Tags": TAGS,
    "Autotune": Refused("give ranges and limits"),
}

ROWS: Mapping[str, Rows] = {
    "CreateHyperParameterTuningJob": CREATE,
    "ListTrainingJobsForHyperParameterTuningJob": honoured(*LIST_PAGES, "HyperParameterTuningJobName", "StatusEquals"),
}
