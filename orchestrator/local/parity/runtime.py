"""SageMaker Runtime."""

from microjobs_orchestrator.local.parity.common import honoured
from microjobs_orchestrator.local.parity.rows import Honoured, Refused, Rows

PASSED_ON = ("ContentType", "Accept", "CustomAttributes", "InferenceId")

RUNTIME: dict[str, Rows] = {
    "InvokeEndpoint": {
        "EndpointName": Honoured(),
        "Body": Honoured("at most 25 MB, as on AWS"),
        **honoured(*PASSED_ON, "TargetVariant", "SessionId", "PrefixAwareId"),
        "TargetModel": Refused("it selects a model of a multi-model endpoint; create one endpoint per model"),
        "TargetContainerHostname": Refused("it selects a container of a model, and models have one container"),
        "InferenceComponentName": Refused("inference components are not supported; give the variant its model"),
        "EnableExplanations": Refused("Clarify is not supported"),
    },
    "InvokeEndpointAsync": honoured(
        "EndpointName",
        *PASSED_ON,
        "InputLocation",
        "S3OutputPathExtension",
        "Filename",
        "RequestTTLSeconds",
        "InvocationTimeoutSeconds",
        "Body",
    ),
}
