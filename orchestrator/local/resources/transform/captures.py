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

MEMBER = "DataCaptureConfig"


def check(context: Context, request: Mapping[str, Any]) -> None:
    """Raise ValidationError unless the manifests of a request, if it has a DataCaptureConfig, can be stored."""
    if MEMBER in request:
        check_destination(context, request[MEMBER])


def store_manifests(context: Context, request: Mapping[str, Any], started: float, done: Sequence[Output]) -> None:
    """Store the manifests of a job that has a DataCaptureConfig.

    Raise ServiceError if a manifest cannot be stored.

    Args:
        started: the start of the job, in seconds since 1970, which is part of the keys.
        done: the outputs of the job.
    """
    if MEMBER not in request:
        return
    source = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    target = outputs.join_key(request["TransformOutput"]["S3OutputPath"], "")
    manifests = {
        "input": _make_manifest(source, (output.stored.key for output in done)),
        "output": _make_manifest(target, (output.key for output in done)),
    }
    hour = time.strftime("%Y/%m/%d/%H", time.gmtime(started))
    for direction, manifest in manifests.items():
        folder = outputs.join_key(request[MEMBER]["DestinationS3Uri"], f"{direction}/{hour}")
        with context.store.new_file() as path:
            path.write_text(json.dumps(manifest), encoding="utf-8")
            context.store.put(*parse_uri(f"{folder}/{uuid.uuid4()}.json"), path)


def _make_manifest(uri: str, keys: Iterable[str]) -> list[Any]:
    """Return the manifest of objects in the folder of an S3 URI."""
    bucket, key = parse_uri(uri)
    folder = key[: key.rfind("/") + 1]
    return [{"prefix": f"s3://{bucket}/{folder}"}, *(key.removeprefix(folder) for key in keys)]
