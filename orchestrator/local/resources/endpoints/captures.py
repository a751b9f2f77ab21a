"""Data capture: the settings of a deployment, and the records of its exchanges.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.exchanges import Exchange
from microjobs_orchestrator.local.s3.keys import parse_uri

EVENT_VERSION = "0"
INPUT, OUTPUT = "Input", "Output"
PARTS_BY_MODE = {INPUT: (INPUT,), OUTPUT: (OUTPUT,), "InputAndOutput": (INPUT, OUTPUT)}
"""The captured parts of an exchange, by the values of CaptureMode."""
ENCODINGS = {"CsvContentTypes": "CSV", "JsonContentTypes": "JSON"}
"""The encodings of text, by the members of CaptureContentTypeHeader. All other content is in base64."""
DEFAULT_CONTENT_TYPE = "application/octet-stream"

ID_HEADER, ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Inference-Id", "X-Amzn-SageMaker-Custom-Attributes"


def is_enabled(config: Mapping[str, Any]) -> bool:
    """Return whether a DataCaptureConfig captures data: it does unless EnableCapture is false."""
    return bool(config.get("EnableCapture", True))


def check_destination(context: Context, config: Mapping[str, Any]) -> None:
    """Raise ValidationError unless objects can be written below the destination of a DataCaptureConfig."""
    uri = config["DestinationS3Uri"]
    try:
        bucket, prefix = parse_uri(uri)
        context.store.check_writable(bucket, outputs.join_key(prefix, "x"))  # an example of an object's key
    except ServiceError as error:
        raise ValidationError(f"DestinationS3Uri {uri}: {error.message}") from error


def describe(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the member DataCaptureConfig of DescribeEndpoint; None if the deployment has no such configuration."""
    if config is None:
        return None
    return {
        "EnableCapture": is_enabled(config),
        "CaptureStatus": "Started" if is_enabled(config) else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


@dataclass(frozen=True)
class CaptureSettings:
    """The settings of an enabled DataCaptureConfig."""

    destination: str
    """The S3 URI below which the objects are stored."""
    percentage: int
    """The share of the exchanges that is captured, in percent."""
    parts: frozenset[str]
    """The captured parts of an exchange: `Input`, `Output` or both."""
    encodings: Mapping[str, str]
    """The encodings of text, by content type."""

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "CaptureSettings":
        types: Mapping[str, list[str]] = config.get("CaptureContentTypeHeader", {})
        return cls(
            config["DestinationS3Uri"],
            config["InitialSamplingPercentage"],
            frozenset(part for option in config["CaptureOptions"] for part in PARTS_BY_MODE[option["CaptureMode"]]),
            {name.lower(): encoding for member, encoding in ENCODINGS.items() for name in types.get(member, ())},
        )

    def make_record(self, exchange: Exchange, end_time: float) -> dict[str, Any]:
        """Return the JSON object that describes an exchange.

        Args:
            end_time: the end of the exchange, in seconds since 1970.
        """
        request, data = exchange.request, {}
        if INPUT in self.parts and isinstance(request.body, bytes):
            data["endpointInput"] = self._encode("INPUT", request.body, request.headers)
        if OUTPUT in self.parts and isinstance(exchange.body, bytes):
            data["endpointOutput"] = self._encode("OUTPUT", exchange.body, exchange.headers)
        metadata: dict[str, Any] = {"eventId": str(uuid.uuid4())}
        if (attributes := request.headers.get(ATTRIBUTES_HEADER)) is not None:
            metadata["customAttributes"] = [attributes]
        if (inference_id := request.headers.get(ID_HEADER)) is not None:
            metadata["inferenceId"] = inference_id
        metadata["inferenceTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end_time))
        return {"captureData": data, "eventMetadata": metadata, "eventVersion": EVENT_VERSION}

    def _encode(self, mode: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        content_type = headers.get("Content-Type", DEFAULT_CONTENT_TYPE)
        encoding = self.encodings.get(content_type.partition(";")[0].strip().lower(), "BASE64")
        try:
            text = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode()
        except UnicodeDecodeError:
            encoding, text = "BASE64", base64.b64encode(body).decode()
        return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}
