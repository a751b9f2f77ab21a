"""Manifests, which list objects instead of a prefix: ManifestFile and AugmentedManifestFile.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.reader import StoredObject
from microjobs_orchestrator.local.s3.store import ObjectStore

REF = "-ref"
"""The suffix of attribute names whose value is the URI of an object with the data."""

Record = tuple[bytes | StoredObject, ...]
"""The values of one line of an augmented manifest, in the order of AttributeNames."""


def objects(store: ObjectStore, uri: str) -> list[tuple[str, StoredObject]]:
    """Return a manifest's objects with their paths. Raise CannotRunError if it is malformed or an object is missing."""
    content = _json(_read(store, uri), uri)
    match content:
        case [{"prefix": str(prefix), **others}, *paths] if not others and all(isinstance(path, str) for path in paths):
            return [(path.lstrip("/"), _object(store, prefix + path, uri)) for path in paths]
    raise _failed(uri, 'it is not a JSON array of {"prefix": "s3://…"} and of keys below that')


def records(store: ObjectStore, uri: str, attributes: Sequence[str]) -> list[Record]:
    """Return an augmented manifest's records, one per line. Raise CannotRunError for a bad line or a missing object."""
    lines = enumerate(_read(store, uri).splitlines(), start=1)
    return [tuple(_values(store, uri, number, line, attributes)) for number, line in lines if line.strip()]


def _values(
    store: ObjectStore, uri: str, number: int, line: str, attributes: Sequence[str]
) -> Iterator[bytes | StoredObject]:
    content = _json(line, f"{uri}, line {number}")
    for name in attributes:
        if not isinstance(content, Mapping) or name not in content:
            raise _failed(uri, f"line {number} has no attribute {name!r}")
        value = content[name]
        text = value if isinstance(value, str) else json.dumps(value)
        yield _object(store, text, f"{uri}, line {number}") if name.endswith(REF) else text.encode()


def _read(store: ObjectStore, uri: str) -> str:
    try:
        return _object(store, uri, uri).path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _failed(uri, str(error)) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _failed(where, f"it is not JSON: {error}") from error


def _object(store: ObjectStore, uri: str, where: str) -> StoredObject:
    try:
        return store.get(*parse_uri(uri))
    except ServiceError as error:
        raise _failed(where, f"{uri}: {error}") from error


def _failed(where: str, reason: str) -> CannotRunError:
    return CannotRunError(f"ClientError: Data download failed: manifest {where}: {reason}")
