"""The model data of a container: one object, or the objects below a prefix, and their ETag."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microjobs.archives import unpack
from microjobs.errors import UserError
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import ObjectStore


@dataclass(frozen=True)
class ModelData:
    """The objects of a container's model data."""

    objects: Sequence[tuple[str, StoredObject]] = ()
    """The objects, with their paths below the folder of the model data."""
    is_archive: bool = False
    """Whether the data is one object, an archive."""
    is_prefix: bool = False
    """Whether the data is the objects below an S3 prefix."""


def find_data(store: ObjectStore, container: Mapping[str, Any]) -> ModelData:
    """Return a container's model data.

    Raise ValidationError if the container has two sources, if the data does not exist, if its ETag differs from the
    one that the container declares, or if an archive is requested from an S3 prefix.
    """
    source = read_source(container)
    uri = source["S3Uri"]
    # Without a URI there is no model data. With Mode MultiModel, it is not known yet, because requests name the models.
    if uri is None or is_multi_model(container):
        return ModelData()
    data = _select_data(store, source)
    if (expected_etag := source.get("ETag")) and (etag := make_etag(store, data)) != expected_etag:
        raise ValidationError(
            f"The model data at {uri} has changed: its ETag is {etag}, but the request or the model package has "
            f"{expected_etag}. Restore the data, or register the model again."
        )
    return data


def list_additional_data(container: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the additional model data by channel name, in the form of container definitions for `find_data`.

    Raise ValidationError if a channel name is used twice, or is `.` or `..`.
    """
    sources = container.get("AdditionalModelDataSources", ())
    names = [source["ChannelName"] for source in sources]
    inputs.check_unique("ChannelNames", names)
    if invalid_names := [name for name in names if name in (".", "..")]:
        raise ValidationError(f"ChannelName {invalid_names[0]} cannot be the name of a folder: choose another name.")
    return {source["ChannelName"]: {"ModelDataSource": {"S3DataSource": source["S3DataSource"]}} for source in sources}


def is_multi_model(container: Mapping[str, Any]) -> bool:
    """Return whether a container loads models when requests name them."""
    return bool(container.get("Mode") == "MultiModel")


def read_source(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the S3DataSource of a container. Its S3Uri is None if the container has no model data.

    Raise ValidationError if the container has two sources.
    """
    if "ModelDataSource" in container and "ModelDataUrl" in container:
        raise ValidationError("ModelDataUrl and ModelDataSource cannot be combined: remove one of them.")
    if "ModelDataSource" in container:
        source: Mapping[str, Any] = container["ModelDataSource"].get("S3DataSource", {"S3Uri": None})
        return source
    archive = {"S3Uri": container.get("ModelDataUrl"), "S3DataType": "S3Object", "CompressionType": "Gzip"}
    return {**archive, "ETag": container.get("ModelDataETag")}


def _select_data(store: ObjectStore, source: Mapping[str, Any]) -> ModelData:
    uri, is_archive = source["S3Uri"], source["CompressionType"] == "Gzip"
    try:
        if source["S3DataType"] != "S3Prefix":
            stored_object = store.get(*parse_uri(uri))
            return ModelData([(Path(stored_object.key).name, stored_object)], is_archive)
        if not is_archive:
            return ModelData(inputs.select_objects(store, uri, "ModelDataSource"), is_prefix=True)
    except ServiceError as error:
        raise ValidationError(f"Could not find model data at {uri}: {error.message}") from error
    raise ValidationError(
        f"CompressionType Gzip requires one archive, but {uri} is a prefix: set S3Uri to an archive and "
        "S3DataType to S3Object"
    )


def make_etag(store: ObjectStore, data: ModelData) -> str:
    """Return the ETag of model data. The ETag of a prefix is a digest of all paths and ETags, and `-N` for N objects.

    Raise ValidationError if an object does not exist any more.
    """
    try:
        etags = [
            (path, store.head(stored_object.bucket, stored_object.key)[1].etag) for path, stored_object in data.objects
        ]
    except ServiceError as error:
        raise ValidationError(f"Could not find model data: {error.message}") from error
    if not data.is_prefix:
        return etags[0][1]
    lines = "".join(f"{path}\0{etag}\n" for path, etag in etags)
    digest = hashlib.md5(lines.encode(errors="surrogateescape"), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(etags)}"


def extract(archive: StoredObject, folder: Path) -> None:
    """Extract a container's model archive into a new folder. Raise CannotRunError if it cannot be extracted."""
    try:
        unpack(archive.path, folder)
    except UserError as error:
        uri = f"s3://{archive.bucket}/{archive.key}"
        raise CannotRunError(f'Failed to extract model data archive from URL "{uri}": {error}') from error
