"""Notifications about the ends of asynchronous invocations, as AWS publishes them to SNS topics.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-check-predictions.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError

MAX_INCLUDED_BYTES = 128 << 10
"""Maximum size of responses that notifications include:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AsyncInferenceNotificationConfig.html"""

Config = Mapping[str, Any]
"""A NotificationConfig of a CreateEndpointConfig request."""


@dataclass(frozen=True)
class InvocationResult:
    """The end of an invocation."""

    content_type: str | None
    """The type of the response; None if the model did not respond."""
    body: str | None = None
    """The response as text, if the notification includes it."""
    failure: str | None = None
    """The reason for the failure; None if the invocation succeeded."""

    @property
    def topic_member(self) -> str:
        """The member of the NotificationConfig that names the topic of this result."""
        return "SuccessTopic" if self.failure is None else "ErrorTopic"


def check_config(config: Config) -> None:
    """Raise ValidationError if responses must be included in the messages of a topic that is not set."""
    topics = {
        "SUCCESS_NOTIFICATION_TOPIC": config.get("SuccessTopic"),
        "ERROR_NOTIFICATION_TOPIC": config.get("ErrorTopic"),
    }
    for topic_type in config.get("IncludeInferenceResponseIn", ()):
        if topics.get(topic_type) is None:
            raise ValidationError(f"IncludeInferenceResponseIn has {topic_type}, but the topic is not set.")


def read_body(config: Config, file: Path, *, is_success: bool) -> str | None:
    """Return the response in a file as text, if the notification must include it and it is small enough."""
    topic_type = "SUCCESS_NOTIFICATION_TOPIC" if is_success else "ERROR_NOTIFICATION_TOPIC"
    if topic_type not in config.get("IncludeInferenceResponseIn", ()) or file.stat().st_size > MAX_INCLUDED_BYTES:
        return None
    return file.read_bytes().decode(errors="replace")


def make_message(
    region: str,
    endpoint: str,
    invocation: Mapping[str, str],
    output_uri: str,
    receive_time: float,
    result: InvocationResult,
) -> dict[str, Any]:
    """Return the message about the end of an invocation.

    Args:
        invocation: its id (`inferenceId`), its `contentType` and, if it has one, its `inputLocation`.
        output_uri: the S3 URI of the result.
        receive_time: the time of the request, in seconds since 1970.
    """
    parameters = {name: value for name, value in invocation.items() if name != "inferenceId"}
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": _format_time(datetime.now(UTC)),
        "receivedTime": _format_time(datetime.fromtimestamp(receive_time, UTC)),
        "invocationStatus": "Completed" if result.failure is None else "Failed",
        "requestParameters": {"endpointName": endpoint, **parameters},
        "inferenceId": invocation["inferenceId"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if result.failure is None:
        message["responseParameters"] = {"contentType": result.content_type, "outputLocation": output_uri}
    else:
        message["failureReason"] = result.failure
    if result.body is not None:
        message["responseBody"] = {"content": result.body, "encoding": "UTF-8"}
    return message


def _format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
