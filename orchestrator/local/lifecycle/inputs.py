"""Inputs of hosts: objects below an S3 prefix, or of a manifest, as folders of hard links."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import manifests
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import ObjectStore

PREFIX, MANIFEST, AUGMENTED = "S3Prefix", "ManifestFile", "AugmentedManifestFile"
"""Values of S3DataType."""

Item = TypeVar("Item")


def find(store: ObjectStore, source: Mapping[str, Any], what: str) -> list[tuple[str, StoredObject]]:
    """Return the objects of a data source, a prefix or a manifest, with their paths as `select` does.

    Raises:
        ValidationError: the prefix has no objects.
        CannotRunError: the manifest is malformed, or names an object that does not exist.
    """
    if source["S3DataType"] == MANIFEST:
        return manifests.objects(store, source["S3Uri"])
    return select(store, source["S3Uri"], what)


def check_source(store: ObjectStore, source: Mapping[str, Any], what: str) -> None:
    """Raise ValidationError if a data source has no objects."""
    if source["S3DataType"] == PREFIX:
        check(store, source["S3Uri"], what)
        return
    try:
        store.get(*parse_uri(source["S3Uri"]))
    except ServiceError as error:
        raise _nothing(source["S3Uri"], what) from error


def select(store: ObjectStore, uri: str, what: str) -> list[tuple[str, StoredObject]]:
    """Return the objects of a prefix with their paths below the input's folder, sorted by key.

    A prefix is one of keys, as on AWS: `s3://b/train` has `train/x` and `train-01/x`. Below the folder an object has
    what follows the prefix. If the prefix ends within a name, the path begins with that name, see
    docs/maintaining/contract.md.

    Raises:
        ValidationError: there is nothing; `what` says whose input it is.
    """
    check(store, uri, what)
    _, prefix = parse_uri(uri)
    return [(_below(prefix, item.key), item) for item in _objects(store, uri)]


def check(store: ObjectStore, uri: str, what: str) -> None:
    """Raise the errors of `select`, but list only the first object."""
    if next(_objects(store, uri), None) is None:
        raise _nothing(uri, what)


def _nothing(uri: str, what: str) -> ValidationError:
    return ValidationError(
        f'No S3 objects found under S3 URL "{uri}" given in {what}. '
        f"Please ensure that the bucket exists and that objects exist under that S3 prefix."
    )


def _objects(store: ObjectStore, uri: str) -> Iterator[StoredObject]:
    bucket, prefix = parse_uri(uri)
    if store.has_bucket(bucket):
        yield from (item for item in store.list(bucket, prefix) if not item.key.endswith("/"))


def _below(prefix: str, key: str) -> str:
    if key == prefix:
        return PurePosixPath(key).name
    if prefix.endswith("/") or prefix == "" or key.startswith(prefix + "/"):
        return key[len(prefix) :].lstrip("/")
    return key[prefix.rfind("/") + 1 :]


def check_unique(what: str, values: Sequence[str]) -> None:
    """Raise ValidationError if a value is repeated."""
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValidationError(f"{what} must differ from each other; given twice: {', '.join(map(repr, twice))}.")


def share(items: Sequence[Item], distribution: str, hosts: int, index: int) -> list[Item]:
    """Return one host's share: all items (`FullyReplicated`), or every nth item (`ShardedByS3Key`)."""
    return list(items[index::hosts]) if distribution == "ShardedByS3Key" else list(items)


def link(objects: Sequence[tuple[str, StoredObject]], folder: Path) -> Path:
    """Make a folder of hard links to objects. Hosts read it, and must not write through the links.

    Raises:
        CannotRunError: two objects have the same path, one lies where another needs a folder, or one is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, item in objects:
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(item.path, target)
        except FileNotFoundError as error:
            raise CannotRunError(
                f"ClientError: Data download failed: s3://{item.bucket}/{item.key} was deleted while the job started"
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise CannotRunError(
                f"ClientError: Data download failed: s3://{item.bucket}/{item.key} and another object "
                f"would both be {path}: use a prefix that ends with /"
            ) from error
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another file system, or a file of another user
        shutil.copyfile(source, target)
