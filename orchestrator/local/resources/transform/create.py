"""CreateTransformJob: checks of its request. Source: facts §2.5."""

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
    """Take a CreateTransformJob request that is valid by itself; nothing runs yet.

    Raises:
        ValidationError: the model, the input or the output's bucket is missing, or numbers do not go together.
        ResourceInUseError: there is a job of that name.
    """
    model = models.find(context, request["ModelName"])
    Options.of({"MaxPayloadInMB": 1, **request}, {})  # what the container says may still be too much
    list_objects(context, request)
    members = {
        "TransformInput": {"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
        "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **request["TransformOutput"]},
    }
    return add_resource(context, TRANSFORM_JOB, request, members=members, kept={"Model": model})


def list_objects(context: Context, request: Mapping[str, Any]) -> list[tuple[str, StoredObject]]:
    """The objects with the keys of what becomes of them."""
    uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, prefix = parse_uri(request["TransformOutput"]["S3OutputPath"])
    found = [
        (outputs.join(prefix, f"{path}.out"), item)
        for path, item in inputs.select(context.store, uri, "transform input")
    ]
    context.store.check(bucket, found[0][0])
    key, count = Counter(key for key, _ in found).most_common(1)[0]
    if count > 1:
        raise ValidationError(f"{count} objects of {uri} would both become {key}: use a prefix that ends with /.")
    return found
