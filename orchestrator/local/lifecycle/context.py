"""The parts of the server that jobs and endpoints use."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from microjobs_orchestrator.local import framework_images, instances
from microjobs_orchestrator.local.alarms.records import Alarms
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.identity import (
    PACKAGES_PATH,
    PACKAGES_USER,
    REGION,
    format_registry,
    make_packages_token,
)
from microjobs_orchestrator.local.lifecycle.connectors import Connectors
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.network_settings import NetworkSettings
from microjobs_orchestrator.local.runtimes.base import HostLimits, Programs, Runtime
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.state import State
from microjobs_orchestrator.local.trees import discard
from microjobs_orchestrator.local.ui_sessions import UiSessions


@dataclass(frozen=True)
class Settings:
    """Settings that the user or the runtime chooses."""

    url: str
    """The address at which hosts reach the server."""
    region: str = REGION
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of local images by image URI, which may contain `*`."""
    replaces_framework_images: bool = False
    """Whether this repository's images replace AWS's framework images."""
    has_limits: bool = False
    """Whether each host is limited to the processors and memory of its instance type."""
    forwarded_port: int | None = None
    """The server's port on this machine, if a guard forwards connections to `url`; otherwise None."""
    is_reachable: bool = True
    """Whether hosts can connect to the server. If not, they install packages from PyPI, not through the server."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    serverless_idle_seconds: float = 300.0
    """Seconds after the last request until the container of a serverless variant is stopped."""
    autoscaling_speed: int = 1
    """The factor by which the times of scaling policies are shorter than on AWS."""
    max_instances: int = 4
    """Maximum number of running instances of a variant."""
    deployment_speed: int = 1
    """The factor by which the times of DeploymentConfig, and the periods of alarms, are shorter than on AWS."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """Commands of the functions that Lambda steps call, by name or ARN."""

    @property
    def client_url(self) -> str:
        """The URL of the server for clients on this machine. Hosts use `url`, which may differ."""
        return self.url if self.forwarded_port is None else f"http://127.0.0.1:{self.forwarded_port}"


@dataclass(frozen=True)
class Context:
    """The parts of the server."""

    home: Home
    state: State
    store: ObjectStore
    logs: LogStore
    metrics: MetricStore
    runtime: Runtime
    settings: Settings
    programs: Programs
    ui_sessions: UiSessions = field(default_factory=UiSessions)
    """Sessions of browsers, for programs with web pages, such as MLflow."""
    mlflow_connectors: Connectors = field(default_factory=Connectors)
    """Functions that connect to the processes of MLflow servers, by ARN."""

    @property
    def alarms(self) -> Alarms:
        return Alarms(self.state, self.metrics, self.settings.deployment_speed)

    def resolve_image(self, uri: str) -> str:
        """Return the local name of an image.

        It is the first of these names that exists: the image's alias; the alias of the first pattern that matches; the
        substitute of a framework image; the image's own name, without the host of the local registry.
        """
        return self._find_alias(uri) or self._find_substitute(uri) or self._strip_registry(uri)

    def make_image_note(self, uri: str) -> str | None:
        """Return a sentence about the versions in the substitute of a framework image; None if it has no substitute."""
        image = framework_images.parse(uri)
        if image is None or self._find_alias(uri) or not (substitute := self._find_substitute(uri)):
            return None
        return image.describe_differences(substitute)

    def _find_alias(self, uri: str) -> str | None:
        if uri in self.settings.aliases:
            return self.settings.aliases[uri]
        matches = (local for pattern, local in self.settings.aliases.items() if fnmatch.fnmatchcase(uri, pattern))
        return next(matches, None)

    def _find_substitute(self, uri: str) -> str | None:
        image = framework_images.parse(uri) if self.settings.replaces_framework_images else None
        if image is None:
            return None
        return image.find_substitute(lambda: {tag for local in self.runtime.images() for tag in local.tags})

    def _strip_registry(self, uri: str) -> str:
        """Return an image's name without the host of the local registry, unless the engine has the whole name."""
        registry = f"{format_registry(self.settings.region)}/"
        if not uri.startswith(registry) or any(uri in image.tags for image in self.runtime.images()):
            return uri
        return uri.removeprefix(registry)

    def make_access_variables(self) -> dict[str, str]:
        """Return the variables that make AWS clients in a host use this server."""
        credentials = self.home.credentials()
        return {
            "AWS_ENDPOINT_URL": self.settings.url,
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_DEFAULT_REGION": self.settings.region,
            "AWS_REGION": self.settings.region,
            "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": self.settings.url,
        }

    def make_package_variables(self) -> dict[str, str]:
        """Return the variables that make package installers in a host use this server, if they can connect to it."""
        if not self.settings.is_reachable:
            return {}
        url = urlsplit(self.settings.url)
        user = f"{PACKAGES_USER}:{make_packages_token(self.home.server_key())}"
        index = url._replace(netloc=f"{user}@{url.netloc}", path=f"{PACKAGES_PATH}/simple").geturl()
        return {
            "PIP_INDEX_URL": index,
            "PIP_TRUSTED_HOST": url.netloc,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_DEFAULT_INDEX": index,
        }

    def find_host_limits(self, instance_type: str) -> HostLimits | None:
        return instances.find_limits(instance_type) if self.settings.has_limits else None

    def make_work_folder(self, plan_name: str) -> Path:
        """Create the empty work folder of a plan. Remove the folder of an earlier attempt."""
        folder = self.get_work_folder(plan_name)
        discard(folder)
        folder.mkdir(parents=True)
        return folder

    def get_work_folder(self, plan_name: str) -> Path:
        """Return the path of the work folder of a plan. The folder may not exist."""
        return self.home.work / plan_name.replace("/", "-")
