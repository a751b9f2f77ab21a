"""Removal of the resources that a test created."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.library.local_server import LocalServer
from microjobs_orchestrator.local.kinds import Kind, load_kinds

POLL_INTERVAL = 0.05
"""Seconds between two Describe calls."""
TIMEOUT_SECONDS = 180.0
"""Time limit for the removal. A job that ignores SIGTERM is killed after 120 s, and its outputs are stored after
that."""

ABSENT_TEXTS = ("Could not find", "does not exist")
"""Texts in errors about a resource that does not exist."""

NamesByKind = Mapping[Kind, frozenset[str]]
"""Names of resources by kind."""


def list_names(server: LocalServer) -> NamesByKind:
    """Return the names of all resources of a server."""
    sagemaker = server.client("sagemaker")
    return {kind: frozenset(_list_names(sagemaker, kind)) for kind in load_kinds() if "List" in kind.verbs}


def _list_names(sagemaker: Any, kind: Kind) -> Iterator[str]:
    """Yield the names of a kind's resources, or their ARNs: versions, and parts of other resources, have no names."""
    parent = kind.parent
    requests = (
        [{parent.name_member: name} for name in _list_names(sagemaker, parent)] if parent else [kind.list_all_members]
    )
    for request in requests:
        for page in sagemaker.get_paginator(_get_method_name(kind, "List")).paginate(**request):
            for summary in page[kind.summaries_member]:
                yield summary.get(kind.identifier_member) or summary[kind.arn_member]


def remove_new_resources(server: LocalServer, earlier_names: NamesByKind) -> None:
    """Stop and delete the resources that do not have one of the earlier names.

    Jobs of kinds that AWS cannot delete, such as transform jobs, are only stopped.

    Raises:
        CommandError: a resource does not end within `TIMEOUT_SECONDS`.
    """
    sagemaker = server.client("sagemaker")
    for kind in reversed(load_kinds()):  # owners are removed first, because they create resources of other kinds
        if "List" in kind.verbs:
            names = {*_list_names(sagemaker, kind)} - earlier_names.get(kind, frozenset())
            for remove in (_request_stop, _await_end, _delete):
                for name in names:
                    remove(sagemaker, kind, name)


def _request_stop(sagemaker: Any, kind: Kind, name: str) -> None:
    if "Stop" in kind.verbs:
        with suppress(ClientError):  # an error means that the resource has ended
            getattr(sagemaker, _get_method_name(kind, "Stop"))(**{kind.identifier_member: name})


def _await_end(sagemaker: Any, kind: Kind, name: str) -> None:
    """Wait until a job has ended."""
    if "Stop" not in kind.verbs or kind.lifecycle is None:
        return
    for description in _poll(sagemaker, kind, name):
        if description[kind.status_member] not in kind.lifecycle.transitional_statuses:
            return


def _delete(sagemaker: Any, kind: Kind, name: str) -> None:
    """Delete a resource, and wait until it does not exist."""
    if "Delete" not in kind.verbs:
        return
    getattr(sagemaker, _get_method_name(kind, "Delete"))(**{kind.identifier_member: name})
    for _ in _poll(sagemaker, kind, name):
        pass


def _poll(sagemaker: Any, kind: Kind, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the current description of a resource repeatedly, until the resource does not exist."""
    describe, deadline = getattr(sagemaker, _get_method_name(kind, "Describe")), time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            yield describe(**{kind.identifier_member: name})
        except ClientError as error:
            if any(text in str(error) for text in ABSENT_TEXTS):
                return
            raise
        time.sleep(POLL_INTERVAL)
    raise CommandError(f"{kind.display_name} {name} was not removed within {TIMEOUT_SECONDS:g} s: see the server's log")


def _get_method_name(kind: Kind, verb: str) -> str:
    """Return the name of boto3's method for an operation."""
    return xform_name(kind.operations[verb])
