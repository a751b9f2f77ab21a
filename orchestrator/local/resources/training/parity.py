"""Parity rows of training jobs."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import (
    ACCESS,
    ARGUMENTS,
    DISTRIBUTION,
    ENTRYPOINT,
    ENVIRONMENT,
    EXPERIMENT,
    HOSTS,
    HUB,
    INSTANCE_TYPE,
    ISOLATION,
    KMS,
    LIST_WITH_STATUS,
    ONE_TYPE,
    ROLE,
    STOPPING,
    TAGS,
    TRAFFIC,
    VOLUME,
    VPC,
)
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

PLAN = Refused("there is no capacity to reserve here")
SDK_RULE = NoEffect("there is no profiler")
DEBUGGER = Refused("there is no debugger to evaluate rules: look at the metrics or the log in the job itself")

INPUT_MODE = Honoured("files before the container starts; FastFile: they are read-only; Pipe: a named pipe an epoch")

CHANNELS: Rows = {
    "ChannelName": Honoured("the folder of the channel's files"),
    "DataSource": Members(
        {
            "S3DataSource": Members(
                {
                    "S3DataType": Honoured(
                        "objects whose keys begin so, or those of a manifest; augmented ones in Pipe mode",
                        values=("S3Prefix", "ManifestFile", "AugmentedManifestFile"),
                        reason="only AWS's own fine-tuning reads conversations: put the objects under one prefix",
                    ),
                    "S3Uri": Honoured(),
                    "S3DataDistributionType": DISTRIBUTION,
                    "AttributeNames": Honoured("of an augmented manifest; `-ref` gives an object's content"),
                    "InstanceGroupNames": Refused("all hosts are in one group"),
                    "ModelAccessConfig": ACCESS,
                    "HubAccessConfig": HUB,
                },
                required=True,
            ),
            "FileSystemDataSource": Refused("there is no EFS or FSx: put the files into a bucket"),
            "DatasetSource": HUB,
        }
    ),
    "ContentType": Honoured("said in inputdataconfig.json"),
    "CompressionType": Honoured("Gzip in Pipe mode, as on AWS"),
    "RecordWrapperType": Honoured("RecordIO in Pipe mode, as on AWS"),
    "InputMode": INPUT_MODE,
    "ShuffleConfig": Members({"Seed": Honoured("the order of the objects, in Pipe mode another one each epoch")}),
}

ALGORITHM: Rows = {
    "TrainingImage": Honoured("an image of the engine, after the aliases of the configuration", required=True),
    "AlgorithmName": Refused("AWS's algorithm resources are not here: give TrainingImage"),
    "TrainingInputMode": INPUT_MODE,
    "MetricDefinitions": Members(
        {"Name": Honoured(), "Regex": Honoured("matched against the log; gives FinalMetricDataList")}
    ),
}

RESOURCES: Rows = {
    "InstanceType": INSTANCE_TYPE,
    "InstanceCount": HOSTS,
    "VolumeSizeInGB": VOLUME,
    "VolumeKmsKeyId": KMS,
    "KeepAlivePeriodInSeconds": NoEffect("there are no instances to keep warm"),
    "InstanceGroups": Refused("all hosts are in one group: give InstanceType and InstanceCount"),
    "TrainingPlanArn": PLAN,
    "InstancePlacementConfig": PLAN,
    "InstancePreferences": ONE_TYPE,
    "SelectedInstanceType": ONE_TYPE,
    "SelectedInstanceCount": ONE_TYPE,
}

DEFINITION: Rows = {
    "RoleArn": ROLE,
    "InputDataConfig": Members(CHANNELS),
    "OutputDataConfig": Members(
        {
            "KmsKeyId": KMS,
            "S3OutputPath": Honoured(),
            "CompressionType": Honoured("`model.tar.gz`, or the files below `model/`"),
        }
    ),
    "ResourceConfig": Members(RESOURCES, required=True),
    "VpcConfig": VPC,
    "StoppingCondition": Members(STOPPING),
    "EnableNetworkIsolation": ISOLATION,
    "EnableInterContainerTrafficEncryption": TRAFFIC,
    "EnableManagedSpotTraining": Honoured("`microjobs interrupt` takes the hosts away, and the job starts over"),
    "CheckpointConfig": Members(
        {"S3Uri": Honoured("copied in at the start, and out while the job runs"), "LocalPath": Honoured()}
    ),
    "RetryStrategy": Members(
        {"MaximumRetryAttempts": Honoured("when the job lost its hosts, or the engine could not start them")}
    ),
    "Environment": ENVIRONMENT,
}
"""What a training job and a tuning job's definition of training jobs have both."""

PROFILER = NoEffect("SDKs send it unasked; there is no profiler")
REMOTE_DEBUG = Refused("use the engine: docker exec into the job's container")
PROFILER_RULES = Members(
    {
        "RuleConfigurationName": SDK_RULE,
        "LocalPath": SDK_RULE,
        "S3OutputPath": SDK_RULE,
        "RuleEvaluatorImage": SDK_RULE,
        "InstanceType": SDK_RULE,
        "VolumeSizeInGB": SDK_RULE,
        "RuleParameters": Honoured(
            "SDKs from before 2023 send the rule ProfilerReport unasked: no effect, and the log says so",
            values=({"rule_to_invoke": "ProfilerReport"},),
            reason=DEBUGGER.reason,
            required=True,
        ),
    }
)

CREATE: Rows = {
    "TrainingJobName": Honoured(),
    "HyperParameters": Honoured("hyperparameters.json"),
    "AlgorithmSpecification": Members(
        {
            **ALGORITHM,
            "EnableSageMakerMetricsTimeSeries": NoEffect("there are no time series of metrics"),
            "ContainerEntrypoint": ENTRYPOINT,
            "ContainerArguments": ARGUMENTS,
            "TrainingImageConfig": NoEffect("the engine's own logins are used"),
        },
        required=True,
    ),
    **DEFINITION,
    "Tags": TAGS,
    "DebugHookConfig": NoEffect("SDKs send it unasked; its file is not written, so no tensors are saved"),
    "DebugRuleConfigurations": DEBUGGER,
    "TensorBoardOutputConfig": Refused("write the events into the output folder, or use CheckpointConfig"),
    "ExperimentConfig": EXPERIMENT,
    "ProfilerConfig": PROFILER,
    "ProfilerRuleConfigurations": PROFILER_RULES,
    "RemoteDebugConfig": REMOTE_DEBUG,
    "InfraCheckConfig": NoEffect("there are no instances to check"),
    "SessionChainingConfig": NoEffect("there are no sessions to tag"),
    "ServerlessJobConfig": Refused("give AlgorithmSpecification and ResourceConfig"),
    "MlflowConfig": Refused("there is no MLflow server: set MLFLOW_TRACKING_URI in Environment"),
    "ModelPackageConfig": Refused("there is no model registry: the model is in S3OutputPath"),
}

UPDATE: Rows = {
    "TrainingJobName": Honoured(),
    "ProfilerConfig": PROFILER,
    "ProfilerRuleConfigurations": PROFILER_RULES,
    "ResourceConfig": Members({"KeepAlivePeriodInSeconds": RESOURCES["KeepAlivePeriodInSeconds"]}),
    "RemoteDebugConfig": REMOTE_DEBUG,
}

ROWS: Mapping[str, Rows] = {
    "CreateTrainingJob": CREATE,
    "UpdateTrainingJob": UPDATE,
    "ListTrainingJobs": {
        **LIST_WITH_STATUS,
        "WarmPoolStatusEquals": Refused("there are no warm pools"),
        "TrainingPlanArnEquals": Refused("there are no training plans"),
    },
}
