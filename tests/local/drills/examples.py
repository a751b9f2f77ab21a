"""Example resources of all kinds with a lifecycle, for the drill that kills the server.

The module finds all kinds by itself, so new resource families take part in the drill without a change here.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from microjobs_orchestrator.local.kinds import Kind, Lifecycle, load_kinds
from tests.local.clients import LocalServer
from tests.local.resources.examples import call, create_example
from tests.polling import wait_until


class Examples:
    """One resource per kind, created before the server is killed."""

    def __init__(self, server: LocalServer, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._created_kinds: set[Kind] = set()
        """The kinds whose Create request the server answered. If the server was killed before it answered a request, it
        may also have created the resource of this request."""

    def create(self) -> None:
        for kind, _, name in self._list_resources():
            create_example(self._server, kind, name)
            self._created_kinds.add(kind)

    def check_and_delete(self) -> None:
        """Check that each resource has completed, runs, or has failed with a reason. Delete resources that run
        forever."""
        for kind, lifecycle, name in self._list_resources():
            if not self._exists(kind, name):
                assert kind not in self._created_kinds, f"{kind.arn_type} {name} was lost"
                continue
            description = self._wait_for_stable_status(kind, lifecycle, name)
            status = description[kind.status_member]
            assert status == lifecycle.success_status or description["FailureReason"], description
            if lifecycle.runs_until_deleted:
                call(self._server, kind, "Delete", name)
                wait_until(partial(self._exists, kind, name), lambda exists: not exists)

    def _list_resources(self) -> Iterator[tuple[Kind, Lifecycle, str]]:
        for number, kind in enumerate(load_kinds()):
            if kind.lifecycle is not None:
                yield kind, kind.lifecycle, f"{self._prefix}-{number}"

    def _exists(self, kind: Kind, name: str) -> bool:
        try:
            call(self._server, kind, "Describe", name)
        except ClientError as error:
            if "Could not find" not in str(error):
                raise
            return False
        return True

    def _wait_for_stable_status(self, kind: Kind, lifecycle: Lifecycle, name: str) -> dict[str, Any]:
        description: dict[str, Any] = wait_until(
            lambda: call(self._server, kind, "Describe", name),
            lambda resource: resource[kind.status_member] not in lifecycle.transitional_statuses,
        )
        return description
