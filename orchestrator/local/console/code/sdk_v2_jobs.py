"""The SDK's classes for training, processing and transform jobs, with the members that their arguments express."""

from collections.abc import Mapping

from microjobs_orchestrator.local.console.code.expressions import Name
from microjobs_orchestrator.local.console.code.sdk_v2 import (
    ArgumentSource,
    CallSource,
    ChoiceSource,
    ConstantSource,
    ListSource,
    MemberSource,
    Program,
)


def map_members(prefix: str = "", /, **paths: str) -> dict[str, ArgumentSource]:
    """Return the sources of arguments whose values are members. `prefix` is the beginning of all paths."""
    return {name: MemberSource(f"{prefix}{path}") for name, path in paths.items()}


SESSION = {"sagemaker_session": ConstantSource(Name("session"))}
NO_WAIT = {"wait": ConstantSource(False)}

TRAINING_INPUT = CallSource(
    "TrainingInput",
    {
        **map_members(
            "DataSource.S3DataSource.",
            s3_data="S3Uri",
            s3_data_type="S3DataType",
            distribution="S3DataDistributionType",
            attribute_names="AttributeNames",
        ),
        **map_members(
            content_type="ContentType",
            compression="CompressionType",
            record_wrapping="RecordWrapperType",
            input_mode="InputMode",
        ),
        "shuffle_config": CallSource("ShuffleConfig", map_members(seed="ShuffleConfig.Seed"), "sagemaker.inputs"),
    },
    "sagemaker.inputs",
)


def make_estimator(
    *,
    prefix: str,
    resources_member: str,
    hyperparameters_member: str,
    more_arguments: Mapping[str, ArgumentSource],
) -> CallSource:
    """Return the call that creates the estimator for a training job, or for the training jobs of a tuning job.

    Args:
        prefix: the path of the structure that contains all other members, with a dot at its end; empty if these are
            members of the request itself.
        resources_member: the name of the structure with the instances.
        hyperparameters_member: the name of the member with the hyperparameters.
        more_arguments: further arguments of the call.
    """
    resources_prefix = f"{prefix}{resources_member}."
    return CallSource(
        "Estimator",
        {
            **map_members(
                prefix,
                image_uri="AlgorithmSpecification.TrainingImage",
                role="RoleArn",
                input_mode="AlgorithmSpecification.TrainingInputMode",
                hyperparameters=hyperparameters_member,
                output_path="OutputDataConfig.S3OutputPath",
                output_kms_key="OutputDataConfig.KmsKeyId",
                max_run="StoppingCondition.MaxRuntimeInSeconds",
                max_wait="StoppingCondition.MaxWaitTimeInSeconds",
                use_spot_instances="EnableManagedSpotTraining",
                checkpoint_s3_uri="CheckpointConfig.S3Uri",
                checkpoint_local_path="CheckpointConfig.LocalPath",
                environment="Environment",
                max_retry_attempts="RetryStrategy.MaximumRetryAttempts",
                subnets="VpcConfig.Subnets",
                security_group_ids="VpcConfig.SecurityGroupIds",
                enable_network_isolation="EnableNetworkIsolation",
                encrypt_inter_container_traffic="EnableInterContainerTrafficEncryption",
            ),
            **map_members(
                resources_prefix,
                instance_count="InstanceCount",
                instance_type="InstanceType",
                volume_size="VolumeSizeInGB",
                volume_kms_key="VolumeKmsKeyId",
            ),
            "disable_output_compression": ChoiceSource(f"{prefix}OutputDataConfig.CompressionType", {"NONE": True}),
            **more_arguments,
            **SESSION,
        },
        "sagemaker.estimator",
        required_members=(
            f"{prefix}AlgorithmSpecification.TrainingInputMode",
            f"{prefix}StoppingCondition.MaxRuntimeInSeconds",
            f"{resources_prefix}VolumeSizeInGB",
        ),
    )


TRAINING = Program(
    (
        (
            "estimator",
            make_estimator(
                prefix="",
                resources_member="ResourceConfig",
                hyperparameters_member="HyperParameters",
                more_arguments={
                    **map_members(
                        "AlgorithmSpecification.",
                        container_entry_point="ContainerEntrypoint",
                        container_arguments="ContainerArguments",
                        metric_definitions="MetricDefinitions",
                        enable_sagemaker_metrics="EnableSageMakerMetricsTimeSeries",
                    ),
                    **map_members(
                        keep_alive_period_in_seconds="ResourceConfig.KeepAlivePeriodInSeconds",
                        tags="Tags",
                    ),
                    "tensorboard_output_config": CallSource(
                        "TensorBoardOutputConfig",
                        map_members(
                            "TensorBoardOutputConfig.",
                            s3_output_path="S3OutputPath",
                            container_local_output_path="LocalPath",
                        ),
                        "sagemaker.debugger",
                    ),
                    "debugger_hook_config": ConstantSource(False),
                    "disable_profiler": ConstantSource(True),
                },
            ),
        ),
        (
            "",
            CallSource(
                "estimator.fit",
                {
                    "inputs": ListSource("InputDataConfig", TRAINING_INPUT, key="ChannelName"),
                    **map_members(job_name="TrainingJobName", experiment_config="ExperimentConfig"),
                    **NO_WAIT,
                },
            ),
        ),
    ),
    "Estimator",
    fixed_values={"ProfilerConfig": {"DisableProfiler": True}},
)

PROCESSING_INPUT = CallSource(
    "ProcessingInput",
    {
        **map_members(
            "S3Input.",
            source="S3Uri",
            destination="LocalPath",
            s3_data_type="S3DataType",
            s3_input_mode="S3InputMode",
            s3_data_distribution_type="S3DataDistributionType",
            s3_compression_type="S3CompressionType",
        ),
        **map_members(input_name="InputName", app_managed="AppManaged"),
    },
    "sagemaker.processing",
)
PROCESSING_OUTPUT = CallSource(
    "ProcessingOutput",
    {
        **map_members("S3Output.", source="LocalPath", destination="S3Uri", s3_upload_mode="S3UploadMode"),
        **map_members(output_name="OutputName", app_managed="AppManaged"),
    },
    "sagemaker.processing",
)
NETWORK = CallSource(
    "NetworkConfig",
    map_members(
        "NetworkConfig.",
        enable_network_isolation="EnableNetworkIsolation",
        encrypt_inter_container_traffic="EnableInterContainerTrafficEncryption",
        subnets="VpcConfig.Subnets",
        security_group_ids="VpcConfig.SecurityGroupIds",
    ),
    "sagemaker.network",
)
PROCESSING = Program(
    (
        (
            "processor",
            CallSource(
                "Processor",
                {
                    **map_members(
                        "ProcessingResources.ClusterConfig.",
                        instance_count="InstanceCount",
                        instance_type="InstanceType",
                        volume_size_in_gb="VolumeSizeInGB",
                        volume_kms_key="VolumeKmsKeyId",
                    ),
                    **map_members(
                        image_uri="AppSpecification.ImageUri",
                        role="RoleArn",
                        entrypoint="AppSpecification.ContainerEntrypoint",
                        output_kms_key="ProcessingOutputConfig.KmsKeyId",
                        max_runtime_in_seconds="StoppingCondition.MaxRuntimeInSeconds",
                        env="Environment",
                        tags="Tags",
                    ),
                    "network_config": NETWORK,
                    **SESSION,
                },
                "sagemaker.processing",
            ),
        ),
        (
            "",
            CallSource(
                "processor.run",
                {
                    "inputs": ListSource("ProcessingInputs", PROCESSING_INPUT),
                    "outputs": ListSource("ProcessingOutputConfig.Outputs", PROCESSING_OUTPUT),
                    **map_members(
                        arguments="AppSpecification.ContainerArguments",
                        job_name="ProcessingJobName",
                        experiment_config="ExperimentConfig",
                    ),
                    "logs": ConstantSource(False),
                    **NO_WAIT,
                },
            ),
        ),
    ),
    "Processor",
)

TRANSFORM = Program(
    (
        (
            "transformer",
            CallSource(
                "Transformer",
                {
                    **map_members(
                        model_name="ModelName",
                        strategy="BatchStrategy",
                        max_concurrent_transforms="MaxConcurrentTransforms",
                        max_payload="MaxPayloadInMB",
                        env="Environment",
                        tags="Tags",
                    ),
                    **map_members(
                        "TransformResources.",
                        instance_count="InstanceCount",
                        instance_type="InstanceType",
                        volume_kms_key="VolumeKmsKeyId",
                    ),
                    **map_members(
                        "TransformOutput.",
                        output_path="S3OutputPath",
                        output_kms_key="KmsKeyId",
                        assemble_with="AssembleWith",
                        accept="Accept",
                    ),
                    **SESSION,
                },
                "sagemaker.transformer",
            ),
        ),
        (
            "",
            CallSource(
                "transformer.transform",
                {
                    **map_members(
                        "TransformInput.",
                        data="DataSource.S3DataSource.S3Uri",
                        data_type="DataSource.S3DataSource.S3DataType",
                        content_type="ContentType",
                        compression_type="CompressionType",
                        split_type="SplitType",
                    ),
                    **map_members(
                        "DataProcessing.",
                        input_filter="InputFilter",
                        output_filter="OutputFilter",
                        join_source="JoinSource",
                    ),
                    **map_members(
                        job_name="TransformJobName",
                        experiment_config="ExperimentConfig",
                        model_client_config="ModelClientConfig",
                    ),
                    "logs": ConstantSource(False),
                    **NO_WAIT,
                },
            ),
        ),
    ),
    "Transformer",
)
