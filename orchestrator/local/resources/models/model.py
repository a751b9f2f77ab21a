"""Models: an image, and an archive or a folder of files.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microjobs.archives import unpack
from microjobs.errors import UserError
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject


def find(context: Context, name: str) -> Mapping[str, Any]:
    """Return the CreateModel request of a model. A caller that runs it keeps a copy, because the model may be deleted.

    Raises:
        ValidationError: no model has that name.
    """
    record = context.state.get(MODEL.arn_type, name)
    if record is None:
        raise ValidationError(
            f'Could not find model "{format_arn(f"{MODEL.arn_type}/{name}", context.settings.region)}".'
        )
    return record.request


def container(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the only container of a CreateModel request, from either of its two members."""
    primary = [model["PrimaryContainer"]] if "PrimaryContainer" in model else []
    given = [*primary, *model.get("Containers", [])]
    if len(given) != 1:
        raise ValidationError(f"A model has one container here, not {len(given)}: give PrimaryContainer.")
    found: Mapping[str, Any] = given[0]
    return found


def fetch(context: Context, model: Mapping[str, Any], folder: Path) -> Path:
    """Make a new folder with a model's files: extracted, or linked, or none; for a container to read.

    Raises:
        ValidationError: the data is gone.
        CannotRunError: the archive is damaged, or a member of it would leave the folder.
    """
    given = container(model)
    uri, archive, objects = find_source(context, given)
    if not archive:
        return inputs.link(objects, folder)
    try:
        unpack(objects[0][1].path, folder)
    except UserError as error:
        raise CannotRunError(f'Failed to extract model data archive from URL "{uri}": {error}') from error
    return folder


def find_source(context: Context, given: Mapping[str, Any]) -> tuple[str, bool, list[tuple[str, StoredObject]]]:
    """Where a container's data is, whether it is an archive, and its objects with their paths below the folder."""
    data = given.get("ModelDataSource", {}).get("S3DataSource")
    if data is None and "ModelDataUrl" not in given:
        return "", False, []
    uri = data["S3Uri"] if data else given["ModelDataUrl"]
    archive = data is None or data["CompressionType"] == "Gzip"
    whole = data is None or data["S3DataType"] == "S3Object"
    if archive and not whole:
        raise ValidationError(f"CompressionType Gzip is one archive: make {uri} its URI, with S3DataType S3Object.")
    try:
        if not whole:
            return uri, archive, inputs.select(context.store, uri, "ModelDataSource")
        item = context.store.get(*parse_uri(uri))
    except ServiceError as error:
        raise ValidationError(f"Could not find model data at {uri}: {error.message}") from error
    return uri, archive, [(Path(item.key).name, item)]
