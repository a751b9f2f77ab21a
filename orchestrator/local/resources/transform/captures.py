"""Data capture of transform jobs: manifests that list the inputs and the outputs of a job.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-batch.html
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.captures import check_destination
from microjobs_orchestrator.local.resources.transform.feeder import Output
from microjobs_orchestrator.local.s3.keys import parse_uri

DATA_CAPTURE_CONFIG = "DataCaptureConfig"


def check(context: Context, request: Mapping[str, Any]) -> None:
    """Raise ValidationError if a request has a DataCaptureConfig whose manifests cannot be stored."""
    if DATA_CAPTURE_CONFIG in request:
        check_destination(context, request[DATA_CAPTURE_CONFIG])


def store_manifests(
    context: Context, request: Mapping[str, Any], start_time: float, completed_outputs: Sequence[Output]
) -> None:
    """Store the manifests of a job. If its request has no DataCaptureConfig, do nothing.

    Raise ServiceError if a manifest cannot be stored.

    Args:
        start_time: the start of the job, in seconds since 1970. The keys of the manifests contain it.
        completed_outputs: the outputs of the job.
    """
    if DATA_CAPTURE_CONFIG not in request:
        return
    input_uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    output_uri = outputs.join_key(request["TransformOutput"]["S3OutputPath"], "")
    manifests = {
        "input": _make_manifest(input_uri, (output.input_object.key for output in completed_outputs)),
        "output": _make_manifest(output_uri, (output.key for output in completed_outputs)),
    }
    hour = time.strftime("%Y/%m/%d/%H", time.gmtime(start_time))
    for direction, manifest in manifests.items():
        folder = outputs.join_key(request[DATA_CAPTURE_CONFIG]["DestinationS3Uri"], f"{direction}/{hour}")
        with context.store.new_file() as path:
            path.write_text(json.dumps(manifest), encoding="utf-8")
            context.store.put(*parse_uri(f"{folder}/{uuid.uuid4()}.json"), path)


def _make_manifest(uri: str, keys: Iterable[str]) -> list[Any]:
    """Return a manifest of objects below an S3 URI. The prefix of the manifest is the URI up to its last `/`. The keys
    in the manifest are relative to this prefix."""
    bucket, key = parse_uri(uri)
    folder = key[: key.rfind("/") + 1]
    return [{"prefix": f"s3://{bucket}/{folder}"}, *(key.removeprefix(folder) for key in keys)]
