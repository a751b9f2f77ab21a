"""What every job needs of the server that runs it."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import REGION, format_registry
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.runtimes.base import Limits, Runtime
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.local.trees import discard


@dataclass(frozen=True)
class Settings:
    """What whoever starts the server decides."""

    url: str
    """Where hosts reach the server."""
    region: str = REGION
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of local images by image URIs, which may have `*`."""
    limits: bool = False
    """Give each host its instance type's processors and memory."""


@dataclass(frozen=True)
class Context:
    """The server's parts, as jobs see them."""

    home: Home
    state: State
    store: ObjectStore
    logs: LogStore
    runtime: Runtime
    settings: Settings

    def image(self, uri: str) -> str:
        """The local name of an image: the exact alias, else the first whose pattern fits, else its own."""
        if uri in self.settings.aliases:
            return self.settings.aliases[uri]
        fitting = (local for pattern, local in self.settings.aliases.items() if fnmatch.fnmatchcase(uri, pattern))
        return next(fitting, None) or self._without_registry(uri)

    def _without_registry(self, uri: str) -> str:
        """The name that ECR's DescribeRepositories gives for an image of the engine, without the registry's host."""
        own = f"{format_registry(self.settings.region)}/"
        if not uri.startswith(own) or any(uri in image.tags for image in self.runtime.images()):
            return uri
        return uri.removeprefix(own)

    def access(self) -> dict[str, str]:
        """Variables with which a host reaches this server as it would reach AWS by its role: the server's own
        credentials and never the user's."""
        credentials = self.home.credentials()
        return {
            "AWS_ENDPOINT_URL": self.settings.url,
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_DEFAULT_REGION": self.settings.region,
            "AWS_REGION": self.settings.region,
        }

    def limits(self, instance_type: str) -> Limits | None:
        return instances.limits(instance_type) if self.settings.limits else None

    def new_work_folder(self, plan_name: str) -> Path:
        """An empty folder for one plan."""
        folder = self.work_folder(plan_name)
        discard(folder)
        folder.mkdir(parents=True)
        return folder

    def work_folder(self, plan_name: str) -> Path:
        return self.home.work / plan_name.replace("/", "-")
