"""Inputs of hosts: objects below an S3 prefix, or objects that a manifest lists, as folders of hard links.

Source of manifests: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import ObjectStore

PREFIX, MANIFEST, AUGMENTED = "S3Prefix", "ManifestFile", "AugmentedManifestFile"
"""Values of S3DataType."""

REFERENCE_SUFFIX = "-ref"
"""The suffix of an attribute's name if the attribute's value is the URI of an object with the data."""

DataRecord = tuple[bytes | StoredObject, ...]
"""The values of one line of an augmented manifest, in the order of AttributeNames; for other data, one object."""

Item = TypeVar("Item")


def find_objects(store: ObjectStore, source: Mapping[str, Any], input_type: str) -> list[tuple[str, StoredObject]]:
    """Return the objects of a data source with their paths below the input's folder. Raise ValidationError if there are
    none, CannotRunError for an invalid manifest."""
    if source["S3DataType"] == MANIFEST:
        return list_manifest_objects(store, source["S3Uri"])
    return select_objects(store, source["S3Uri"], input_type)


def check_source(store: ObjectStore, source: Mapping[str, Any], input_type: str) -> None:
    """Raise ValidationError if a prefix has no objects, or a manifest does not exist."""
    uri = source["S3Uri"]
    parse_uri(uri)  # an invalid URI needs a more precise error than "No S3 objects found"
    try:
        exists = any(_list_objects(store, uri)) if source["S3DataType"] == PREFIX else store.get(*parse_uri(uri))
    except ServiceError as error:
        raise _make_no_objects_error(uri, input_type) from error
    if not exists:
        raise _make_no_objects_error(uri, input_type)


def select_objects(store: ObjectStore, uri: str, input_type: str) -> list[tuple[str, StoredObject]]:
    """Return the objects of a prefix with their paths below the input's folder, sorted by key.

    A prefix is the beginning of keys, as on AWS: `s3://b/train` selects `train/x` and `train-01/x`. An object's path is
    the rest of its key after the prefix. If the prefix ends within a name, the path begins with that whole name, see
    docs/maintaining/contract.md. Raise ValidationError, which names the `input_type`, if there are no objects.
    """
    _, prefix = parse_uri(uri)
    objects = [(_derive_path(prefix, item.key), item) for item in _list_objects(store, uri)]
    if not objects:
        raise _make_no_objects_error(uri, input_type)
    return objects


def _make_no_objects_error(uri: str, input_type: str) -> ValidationError:
    return ValidationError(
        f'No S3 objects found under S3 URL "{uri}" given in {input_type}. '
        f"Please ensure that the bucket exists and that objects exist under that S3 prefix."
    )


def _list_objects(store: ObjectStore, uri: str) -> Iterator[StoredObject]:
    bucket, prefix = parse_uri(uri)
    if store.has_bucket(bucket):
        yield from (item for item in store.list(bucket, prefix) if not item.key.endswith("/"))


def _derive_path(prefix: str, key: str) -> str:
    if key == prefix:
        return PurePosixPath(key).name
    if prefix.endswith("/") or prefix == "" or key.startswith(prefix + "/"):
        return key[len(prefix) :].lstrip("/")
    return key[prefix.rfind("/") + 1 :]


def check_unique(member: str, values: Sequence[str]) -> None:
    """Raise ValidationError if a value is repeated."""
    if duplicates := sorted({value for value in values if values.count(value) > 1}):
        raise ValidationError(f"{member} must be unique; repeated: {', '.join(map(repr, duplicates))}.")


def select_share(items: Sequence[Item], distribution: str, host_count: int, host_index: int) -> list[Item]:
    """Return one host's share: all items (`FullyReplicated`), or with n hosts every nth item (`ShardedByS3Key`)."""
    return list(items[host_index::host_count]) if distribution == "ShardedByS3Key" else list(items)


def link_objects(objects: Sequence[tuple[str, StoredObject]], folder: Path) -> Path:
    """Link objects into a folder, which hosts only read. Raise CannotRunError if an object was deleted, or if two
    objects have the same path."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, item in objects:
        target = folder / path
        problem = f"ClientError: Data download failed: s3://{item.bucket}/{item.key}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(item.path, target)
        except FileNotFoundError as error:
            raise CannotRunError(
                f"{problem} was deleted while the job started: store it, and start the job again"
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise CannotRunError(
                f"{problem} has the same path as another object, {path}: use a prefix that ends with /"
            ) from error
    return folder


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # the object is on another file system, or belongs to another user
        shutil.copyfile(source, target)


# --- manifests ---


def list_manifest_objects(store: ObjectStore, uri: str) -> list[tuple[str, StoredObject]]:
    """Return a manifest's objects with their paths. Raise CannotRunError if it is malformed or an object is missing."""
    content = _parse_json(_read_manifest(store, uri), uri)
    match content:
        case [{"prefix": str(prefix), **others}, *paths] if not others and all(isinstance(path, str) for path in paths):
            return [(path.lstrip("/"), _get_object(store, prefix + path, uri)) for path in paths]
    raise _make_manifest_error(uri, 'it must be a JSON array: first {"prefix": "s3://…"}, then keys below this prefix')


def read_records(store: ObjectStore, uri: str, attributes: Sequence[str]) -> list[DataRecord]:
    """Return an augmented manifest's records, one per line. Raise CannotRunError if a line is invalid or an object is
    missing."""
    lines = enumerate(_read_manifest(store, uri).splitlines(), start=1)
    return [tuple(_read_values(store, uri, number, line, attributes)) for number, line in lines if line.strip()]


def _read_values(
    store: ObjectStore, uri: str, number: int, line: str, attributes: Sequence[str]
) -> Iterator[bytes | StoredObject]:
    content = _parse_json(line, f"{uri}, line {number}")
    for name in attributes:
        if not isinstance(content, Mapping) or name not in content:
            raise _make_manifest_error(uri, f"line {number} has no attribute {name!r}")
        value = content[name]
        text = value if isinstance(value, str) else json.dumps(value)
        yield _get_object(store, text, f"{uri}, line {number}") if name.endswith(REFERENCE_SUFFIX) else text.encode()


def _read_manifest(store: ObjectStore, uri: str) -> str:
    try:
        return _get_object(store, uri, uri).path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _make_manifest_error(uri, str(error)) from error


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _make_manifest_error(place, f"it is not JSON: {error}") from error


def _get_object(store: ObjectStore, uri: str, place: str) -> StoredObject:
    try:
        return store.get(*parse_uri(uri))
    except ServiceError as error:
        raise _make_manifest_error(place, f"{uri}: {error}") from error


def _make_manifest_error(place: str, reason: str) -> CannotRunError:
    return CannotRunError(f"ClientError: Data download failed: manifest {place}: {reason}")
