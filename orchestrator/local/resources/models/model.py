"""The container of a model, and the files of the model.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microjobs.archives import unpack
from microjobs.errors import UserError
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject

Container = Mapping[str, Any]
"""A ContainerDefinition of a CreateModel request."""


def get_container(model: Mapping[str, Any]) -> Container:
    """Return the only container of a CreateModel request. Raise ValidationError if it has none, or several."""
    primary = [model["PrimaryContainer"]] if "PrimaryContainer" in model else []
    containers: list[Container] = [*primary, *model.get("Containers", [])]
    if len(containers) != 1:
        raise ValidationError(f"A model must have one container, not {len(containers)}: use only PrimaryContainer.")
    return containers[0]


def fetch(context: Context, container: Container, folder: Path) -> Path:
    """Make a new folder with a container's model data: an extracted archive, links to objects, or nothing.

    Raise ValidationError if the data does not exist any more, and CannotRunError if the archive cannot be extracted.
    """
    is_archive, objects = find_data(context, container)
    if not is_archive:
        return inputs.link(objects, folder)
    ((_, stored),) = objects
    try:
        unpack(stored.path, folder)
    except UserError as error:
        uri = f"s3://{stored.bucket}/{stored.key}"
        raise CannotRunError(f'Failed to extract model data archive from URL "{uri}": {error}') from error
    return folder


def find_data(context: Context, container: Container) -> tuple[bool, list[tuple[str, StoredObject]]]:
    """Return whether a container's model data is an archive, and its objects with their paths below the folder.

    Raise ValidationError if the data does not exist, or several objects should be an archive.
    """
    archive = {"S3Uri": container.get("ModelDataUrl"), "S3DataType": "S3Object", "CompressionType": "Gzip"}
    source = container.get("ModelDataSource", {}).get("S3DataSource", archive)
    uri, is_archive = source["S3Uri"], source["CompressionType"] == "Gzip"
    if uri is None:
        return False, []
    try:
        if source["S3DataType"] != "S3Prefix":
            stored = context.store.get(*parse_uri(uri))
            return is_archive, [(Path(stored.key).name, stored)]
        if not is_archive:
            return False, inputs.select(context.store, uri, "ModelDataSource")
    except ServiceError as error:
        raise ValidationError(f"Could not find model data at {uri}: {error.message}") from error
    raise ValidationError(
        f"CompressionType Gzip needs one archive, not {uri}: set S3Uri to one, with S3DataType S3Object"
    )
