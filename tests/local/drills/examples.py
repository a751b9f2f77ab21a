"""Example resources of all kinds with a lifecycle, for the drill that kills the server.

The kinds are discovered, so new resource families take part without a change of this module. MLflow servers start too
slowly for this drill: `tests/local/mlflow` kills a server that runs them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from microjobs_orchestrator.local.kinds import Kind, Lifecycle, all_kinds
from microjobs_orchestrator.local.resources.mlflow.kinds import MLFLOW_APP, MLFLOW_TRACKING_SERVER
from tests.local.clients import LocalServer, wait_until
from tests.local.resources.examples import call, create_example


class Examples:
    """One resource per kind, created before the server is killed."""

    def __init__(self, local: LocalServer, prefix: str) -> None:
        self._local = local
        self._prefix = prefix
        self._created: set[Kind] = set()
        """The kinds whose Create request the server answered. The server may have created one more resource and been
        killed before it answered."""

    def create(self) -> None:
        for kind, _, name in self._resources():
            create_example(self._local, kind, name)
            self._created.add(kind)

    def check(self) -> None:
        """Check that each resource ended well, runs, or failed with a reason. Delete those that run forever."""
        for kind, lifecycle, name in self._resources():
            if not self._exists(kind, name):
                assert kind not in self._created, f"{kind.arn_type} {name} was lost"
                continue
            described = self._wait(kind, lifecycle, name)
            status = described[kind.status_member]
            assert status == lifecycle.success or described["FailureReason"], described
            if lifecycle.is_lasting:
                call(self._local, kind, "Delete", name)
                wait_until(partial(self._exists, kind, name), lambda exists: not exists)

    def _resources(self) -> Iterator[tuple[Kind, Lifecycle, str]]:
        for number, kind in enumerate(all_kinds()):
            if kind.lifecycle is not None and kind not in (MLFLOW_TRACKING_SERVER, MLFLOW_APP):
                yield kind, kind.lifecycle, f"{self._prefix}-{number}"

    def _exists(self, kind: Kind, name: str) -> bool:
        try:
            call(self._local, kind, "Describe", name)
        except ClientError as error:
            if "Could not find" not in str(error):
                raise
            return False
        return True

    def _wait(self, kind: Kind, lifecycle: Lifecycle, name: str) -> dict[str, Any]:
        described: dict[str, Any] = wait_until(
            lambda: call(self._local, kind, "Describe", name),
            lambda resource: resource[kind.status_member] not in lifecycle.transitional,
        )
        return described
