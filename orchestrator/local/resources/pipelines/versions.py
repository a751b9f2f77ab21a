"""Versions of pipelines. Each change of a pipeline's definition adds a version.

A version is a record with the name of its pipeline. Its version number is the PipelineVersionId. Only this record
contains the definition.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-version-aliases.html
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE
from microjobs_orchestrator.local.state import Owner, Query, Record, State

VERSION = Kind(
    arn_type="pipeline-version",
    noun="PipelineVersion",
    title="pipeline version",
    verbs=(),
    sort_by="Name",
    newest_first=True,
)
"""The kind of the records of versions. Versions are not resources: operations on pipelines read and change them."""

MAX_ALIASES = 10
PAGE_SIZE = 1000


def add_version(state: State, pipeline: str, arn: str, number: int, definition: str, aliases: Sequence[str]) -> None:
    """Store a version of a pipeline. `arn` is the pipeline's ARN."""
    members = {
        "PipelineArn": arn,
        "PipelineVersionId": number,
        "PipelineDefinition": definition,
        "PipelineVersionAliases": list(aliases),
    }
    owner = Owner(PIPELINE.arn_type, pipeline)
    state.add(VERSION.arn_type, pipeline, f"{arn}/version/{number}", "", {}, members, owner=owner, version=number)


def find_version(state: State, pipeline: str, request: Mapping[str, Any]) -> Record:
    """Return the version that a request selects by PipelineVersionId or PipelineVersionAlias, by default the latest.

    Raises:
        ServiceError: the request has both members, or the version does not exist.
    """
    number, alias = request.get("PipelineVersionId"), request.get("PipelineVersionAlias")
    if number is not None and alias is not None:
        raise ValidationError("Specify either PipelineVersionId or PipelineVersionAlias, not both.")
    if number is not None:
        version = state.get(VERSION.arn_type, pipeline, number)
    else:
        version = find_by_alias(state, pipeline, alias) if alias is not None else find_latest(state, pipeline)
    if version is None:
        description = f"version {number}" if number is not None else f"version with the alias {alias!r}"
        raise ServiceError("ResourceNotFound", f"Could not find {description} of pipeline {pipeline!r}.")
    return version


def find_latest(state: State, pipeline: str) -> Record | None:
    query = Query(VERSION.arn_type, owner=Owner(PIPELINE.arn_type, pipeline), order_by="name", limit=1)
    return next(iter(state.find(query)), None)


def find_by_alias(state: State, pipeline: str, alias: str) -> Record | None:
    return next((version for version in iterate_versions(state, pipeline) if alias in get_aliases(version)), None)


def record_execution(state: State, version: Record, arn: str) -> None:
    """Store that the newest execution of a version is the one with this ARN."""
    changes = {"LastExecutionPipelineExecutionArn": arn}
    state.update(VERSION.arn_type, version.name, changes, version=version.version)


def get_aliases(version: Record) -> list[str]:
    return list(version.description["PipelineVersionAliases"])


def iterate_versions(state: State, pipeline: str) -> Iterator[Record]:
    """Yield all versions of a pipeline, newest first."""
    after = None
    while page := state.find(_make_page_query(pipeline, after)):
        yield from page
        after = (pipeline, pipeline, page[-1].version)


def _make_page_query(pipeline: str, after: tuple[float | str, str, int] | None) -> Query:
    owner = Owner(PIPELINE.arn_type, pipeline)
    return Query(VERSION.arn_type, owner=owner, order_by="name", limit=PAGE_SIZE, after=after)


def delete_versions(state: State, pipeline: str) -> None:
    for version in list(iterate_versions(state, pipeline)):
        state.delete(VERSION.arn_type, pipeline, version=version.version)


def check_aliases(aliases: Collection[str], other_aliases: Mapping[str, int]) -> None:
    """Check the aliases of a version.

    Args:
        other_aliases: aliases of other versions of the pipeline, with their PipelineVersionIds.

    Raises:
        ValidationError: an alias is invalid, or belongs to another version.
    """
    if len(aliases) > MAX_ALIASES:
        raise ValidationError(f"A version can have at most {MAX_ALIASES} aliases, not {len(aliases)}.")
    if len(set(aliases)) < len(aliases):
        raise ValidationError(f"The aliases {', '.join(sorted(aliases))} must be different.")
    for alias in aliases:
        if alias.isdigit():
            raise ValidationError(f"The alias {alias!r} must not consist of digits only.")
        if alias in other_aliases:
            raise ValidationError(
                f"The alias {alias!r} belongs to version {other_aliases[alias]}: remove it from that version with "
                "UpdatePipelineVersion."
            )


def list_other_aliases(state: State, pipeline: str, number: int = 0) -> dict[str, int]:
    """Return the aliases of all versions except the version `number`, with their PipelineVersionIds."""
    versions = (version for version in iterate_versions(state, pipeline) if version.version != number)
    return {alias: version.version for version in versions for alias in get_aliases(version)}
