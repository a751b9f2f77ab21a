"""CreateTransformJob: checks of the request.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models import model as models
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.resources.transform.feeder import Options
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.state import Record


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateTransformJob request and add the job, which does not run yet.

    Raises:
        ValidationError: the model, the input or the bucket of the output does not exist, or limits contradict each
            other.
        ResourceInUseError: a job of that name exists.
    """
    model = models.find(context, request["ModelName"])
    Options.of({"MaxPayloadInMB": 1, **request}, {})  # the job checks the container's proposed values
    list_objects(context, request)
    members = {
        "TransformInput": {"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
        "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **request["TransformOutput"]},
    }
    return add_resource(context, TRANSFORM_JOB, request, members=members, kept={"Model": model})


def list_objects(context: Context, request: Mapping[str, Any]) -> list[tuple[str, StoredObject]]:
    """Return the input objects, each with the key of its output.

    Raises:
        ValidationError: two objects have the same output key, or the bucket of the output does not exist.
    """
    uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, prefix = parse_uri(request["TransformOutput"]["S3OutputPath"])
    keyed_objects = [
        (outputs.join(prefix, f"{path}.out"), stored)
        for path, stored in inputs.select(context.store, uri, "transform input")
    ]
    context.store.check(bucket, keyed_objects[0][0])
    key, count = Counter(key for key, _ in keyed_objects).most_common(1)[0]
    if count > 1:
        raise ValidationError(f"{count} objects of {uri} would both become {key}: use a prefix that ends with /.")
    return keyed_objects
