"""Parity rows of inference components."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import ENVIRONMENT, LIST_ROWS_WITH_STATUS, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows
from microjobs_orchestrator.local.resources.endpoints.parity import ALARMS, ROLLING

ONE_SPECIFICATION = Refused("hosts run on this one machine: set Specification")
PLACEMENT = NoEffect("all copies run on this one machine")

SPECIFICATION: Rows = {
    "InstanceType": Refused("the variant has the instance type"),
    "ModelName": Honoured("the model that each copy serves"),
    "Container": Members(
        {
            "Image": Honoured("an image of the engine; the configuration may define aliases"),
            "ArtifactUrl": Honoured("a `.tar.gz`, extracted before the container starts"),
            "Environment": ENVIRONMENT,
            "ContainerMetricsConfig": NoEffect("metrics are not collected; request them from the container"),
        }
    ),
    "StartupParameters": Members(
        {
            "ModelDataDownloadTimeoutInSeconds": NoEffect("nothing is downloaded"),
            "ContainerStartupHealthCheckTimeoutInSeconds": Honoured("seconds until `/ping` must answer 200"),
        }
    ),
    "ComputeResourceRequirements": Members(
        {
            "NumberOfCpuCoresRequired": Honoured("the limit of each copy"),
            "NumberOfAcceleratorDevicesRequired": NoEffect("a GPU type of the variant gets this machine's GPUs"),
            "MinMemoryRequiredInMb": NoEffect("copies share this machine's memory"),
            "MaxMemoryRequiredInMb": Honoured("the limit of each copy; the runtime `process` does not limit memory"),
            "AcceleratorPartitionType": Refused("GPUs are not divided"),
        }
    ),
    "BaseInferenceComponentName": Honoured("the component is an adapter, loaded with `POST /adapters`"),
    "DataCacheConfig": NoEffect("nothing is downloaded"),
    "SchedulingConfig": PLACEMENT,
}
COPIES: Rows = {"CopyCount": Honoured("the number of containers; if it is 0, requests are refused")}

ROWS: Mapping[str, Rows] = {
    "CreateInferenceComponent": {
        "InferenceComponentName": Honoured(),
        "EndpointName": Honoured(),
        "VariantName": Honoured("a variant without ModelName; an adapter has the variant of its base component"),
        "Specification": Members(SPECIFICATION, required=True),
        "Specifications": ONE_SPECIFICATION,
        "RuntimeConfig": Members(COPIES),
        "Tags": TAGS,
    },
    "UpdateInferenceComponent": {
        "InferenceComponentName": Honoured(),
        "Specification": Members(SPECIFICATION),
        "Specifications": ONE_SPECIFICATION,
        "RuntimeConfig": Members(COPIES),
        "DeploymentConfig": Members({"RollingUpdatePolicy": ROLLING, "AutoRollbackConfiguration": ALARMS}),
    },
    "UpdateInferenceComponentRuntimeConfig": {
        "InferenceComponentName": Honoured(),
        "DesiredRuntimeConfig": Members(COPIES),
    },
    "ListInferenceComponents": {
        **LIST_ROWS_WITH_STATUS,
        **make_honoured_rows("EndpointNameEquals", "VariantNameEquals"),
    },
}
