"""Parity rows of training jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity import common
from microjobs_orchestrator.local.parity.common import make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

DEBUGGER = Refused("SageMaker Debugger is not supported: check the metrics or the log in the job itself")

INPUT_MODE = Honoured("File and FastFile: files, which FastFile makes read-only; Pipe: one named pipe per epoch")

S3_SOURCE: Rows = {
    "S3DataType": Honoured(
        "objects with a key prefix, or those of a manifest; augmented manifests in Pipe mode",
        values=("S3Prefix", "ManifestFile", "AugmentedManifestFile"),
        reason="`Converse` is only for AWS's own fine-tuning: use S3Prefix",
    ),
    **make_honoured_rows("S3Uri"),
    "S3DataDistributionType": common.DISTRIBUTION,
    "AttributeNames": Honoured(
        "the attributes of an augmented manifest; a name that ends with `-ref` stands for the content of the object"
    ),
    "InstanceGroupNames": Refused("all hosts are in one group"),
    "ModelAccessConfig": common.MODEL_ACCESS,
    "HubAccessConfig": common.HUB,
}

CHANNELS: Rows = {
    "ChannelName": Honoured("the folder of the channel's files"),
    "DataSource": Members(
        {
            "S3DataSource": Members(S3_SOURCE, required=True),
            "FileSystemDataSource": Refused("EFS and FSx are not supported: put the files into a bucket"),
            "DatasetSource": common.HUB,
        }
    ),
    "ContentType": Honoured("written to inputdataconfig.json"),
    "CompressionType": Honoured("Gzip in Pipe mode, as on AWS"),
    "RecordWrapperType": Honoured("RecordIO in Pipe mode, as on AWS"),
    "InputMode": INPUT_MODE,
    "ShuffleConfig": Members(
        {"Seed": Honoured("shuffles the objects; in Pipe mode, each epoch has a different order")}
    ),
}

ALGORITHM: Rows = {
    "TrainingImage": Honoured("an image of the engine; the configuration may define aliases", required=True),
    "AlgorithmName": Refused("AWS's algorithms are not supported: use TrainingImage"),
    "TrainingInputMode": INPUT_MODE,
    "MetricDefinitions": Members(
        {"Name": Honoured(), "Regex": Honoured("matched against the log; the results are in FinalMetricDataList")}
    ),
}

KEEP_ALIVE: dict[str, Row] = {"KeepAlivePeriodInSeconds": NoEffect("there are no instances to keep warm")}

RESOURCES: Rows = {
    **common.CLUSTER,
    **KEEP_ALIVE,
    "InstanceGroups": Refused("all hosts are in one group: use InstanceType and InstanceCount"),
    **dict.fromkeys(("TrainingPlanArn", "InstancePlacementConfig"), Refused("capacity cannot be reserved")),
    **common.PREFERENCES,
}

DEFINITION: Rows = {
    "RoleArn": common.ROLE,
    "InputDataConfig": Members(CHANNELS),
    "OutputDataConfig": Members(
        {
            "KmsKeyId": common.KMS,
            "S3OutputPath": Honoured(),
            "CompressionType": Honoured("`model.tar.gz`, or the files below `model/`"),
        }
    ),
    "ResourceConfig": Members(RESOURCES, required=True),
    **common.NETWORK,
    "StoppingCondition": Members(common.STOPPING_CONDITION),
    "EnableManagedSpotTraining": Honoured("`microjobs interrupt` ends the hosts, and the job starts over"),
    "CheckpointConfig": Members(
        {"S3Uri": Honoured("downloaded at the start, and uploaded while the job runs"), "LocalPath": Honoured()}
    ),
    "RetryStrategy": Members(
        {"MaximumRetryAttempts": Honoured("retries if the hosts were lost, or the engine could not start them")}
    ),
    "Environment": common.ENVIRONMENT,
}
"""Rows for training jobs, and for a tuning job's definition of training jobs."""

PROFILER_RULE_MEMBERS = (
    "RuleConfigurationName",
    "LocalPath",
    "S3OutputPath",
    "RuleEvaluatorImage",
    "InstanceType",
    "VolumeSizeInGB",
)

PROFILER: Rows = {
    "ProfilerConfig": NoEffect("SDKs send it by default; jobs are not profiled"),
    "ProfilerRuleConfigurations": Members(
        {
            **dict.fromkeys(PROFILER_RULE_MEMBERS, NoEffect("jobs are not profiled")),
            "RuleParameters": Honoured(
                "SDKs from before 2023 send the rule ProfilerReport by default; no effect, and the log reports it",
                values=({"rule_to_invoke": "ProfilerReport"},),
                reason=DEBUGGER.reason,
                required=True,
            ),
        }
    ),
    "RemoteDebugConfig": Refused("use the engine: docker exec into the job's container"),
}

CREATE: Rows = {
    **make_honoured_rows("TrainingJobName"),
    "HyperParameters": Honoured("hyperparameters.json"),
    "AlgorithmSpecification": Members(
        {
            **ALGORITHM,
            "EnableSageMakerMetricsTimeSeries": NoEffect("the time series of all metrics are stored"),
            **common.COMMAND,
            "TrainingImageConfig": NoEffect("the engine uses its own logins for registries"),
        },
        required=True,
    ),
    **DEFINITION,
    **PROFILER,
    "Tags": common.TAGS,
    "DebugHookConfig": NoEffect("SDKs send it by default; its file is not written, so no tensors are saved"),
    "DebugRuleConfigurations": DEBUGGER,
    "TensorBoardOutputConfig": Members(
        {
            "LocalPath": Honoured("the folder of the event files, by default `output/tensorboard`"),
            "S3OutputPath": Honoured("uploaded while the job runs, below `<job>/tensorboard-output/`"),
        }
    ),
    "ExperimentConfig": common.EXPERIMENT,
    "InfraCheckConfig": NoEffect("there are no instances to check"),
    "SessionChainingConfig": NoEffect("there are no sessions to tag"),
    "ServerlessJobConfig": Refused("use AlgorithmSpecification and ResourceConfig"),
    "MlflowConfig": Members(
        {
            "MlflowResourceArn": Honoured("a running tracking server or app; the hosts get MLFLOW_TRACKING_URI"),
            "MlflowExperimentName": Honoured("created if it does not exist; by default, MLflow's `Default`"),
            "MlflowRunName": Honoured("the name of the run, which the job continues; by default, the job's name"),
        }
    ),
    "ModelPackageConfig": Members(
        {
            "ModelPackageGroupArn": Honoured("a completed job registers its model as a version in this group"),
            "SourceModelPackageArn": Refused("put the model of the package into a channel"),
        }
    ),
}

ROWS: Mapping[str, Rows] = {
    "CreateTrainingJob": CREATE,
    "UpdateTrainingJob": {**make_honoured_rows("TrainingJobName"), **PROFILER, "ResourceConfig": Members(KEEP_ALIVE)},
    "ListTrainingJobs": {
        **common.LIST_ROWS_WITH_STATUS,
        "WarmPoolStatusEquals": Refused("warm pools are not supported"),
        "TrainingPlanArnEquals": Refused("training plans are not supported"),
    },
}
