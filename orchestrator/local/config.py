"""Configuration of the local server: flags, and `microjobs.toml` in the current folder for flags that are missing.

[local]
port = 4577
runtime = "auto"
limits = false
all_addresses = false
host_names = ["microjobs"]
framework_images = false
guard_image = "python:3.11-slim-bookworm"
serverless_idle_seconds = 300
autoscaling_speed = 1
max_instances = 4
deployment_speed = 1
ca_bundle = "/etc/ssl/certs/ca-certificates.crt"

[local.images]
"*.dkr.ecr.*.amazonaws.com/sagemaker-scikit-learn:*" = "my-scikit-learn:dev"

[local.proxies]
https = "http://proxy.example.com:3128"
no = ".example.com"

[local.services]
secretsmanager = "http://127.0.0.1:5000"

[local.functions]
approve = "handlers.py:approve"
notify = "python notify.py"

[[local.events]]
file = "events.jsonl"
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local import framework_images, network_settings
from microjobs_orchestrator.local.event_settings import read_targets
from microjobs_orchestrator.local.identity import REGION
from microjobs_orchestrator.local.package_settings import hide_password

FILE = Path("microjobs.toml")
SECTIONS = ("local", "aws")
"""Tables that the file may have."""
PORT = 4577
MAX_PORT = 65_535
SERVERLESS_IDLE_SECONDS = 300
MAX_INSTANCES = 4
MAXIMUMS = {"autoscaling_speed": 60, "max_instances": 100, "deployment_speed": 60}
"""The maximum of each setting that has one. The minimum of these settings is 1."""
RUNTIMES = ("auto", "docker", "process")
HOST_NAME_PATTERN = re.compile(r"[A-Za-z0-9.-]+")
"""Pattern of the items of `host_names`."""
EMULATOR_URL_PATTERN = re.compile(r"https?://[^/?#\s@]+(/[^?#\s]*)?")
"""Pattern of the address of another emulator."""
PROXY_URL_PATTERN = re.compile(r"(https?|socks5h?)://[^/?#\s@]+/?")
"""Pattern of the address of a proxy of jobs."""


TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}
"""Names of types in error messages, by the type of a setting's default value."""


class ConfigError(UsageError):
    """The file or a flag is invalid. The message states the remedy."""


@dataclass(frozen=True)
class Config:
    """Settings of a server."""

    port: int = PORT
    """0: any free port."""
    runtime: str = "auto"
    region: str = REGION
    limits: bool = False
    """Whether to limit hosts to the processors and memory of their instance type."""
    all_addresses: bool = False
    """Whether to listen on all addresses of this machine, not only on loopback: for a server in a container."""
    host_names: Sequence[str] = field(default_factory=list)
    """Additional names of this server in the Host header of requests, such as the name of a Compose service."""
    framework_images: bool = False
    """Whether to run this repository's images in place of AWS's images for scikit-learn, TensorFlow and PyTorch."""
    guard_image: str = ""
    """Image with Python for the guards of hosts' networks, or `none`. If it is empty, `Guards` chooses an image."""
    serverless_idle_seconds: int = SERVERLESS_IDLE_SECONDS
    """Seconds after the last request until the container of a serverless variant is stopped."""
    autoscaling_speed: int = 1
    """The factor by which the times of scaling policies are shorter than on AWS."""
    max_instances: int = MAX_INSTANCES
    """Maximum number of running instances of a variant."""
    deployment_speed: int = 1
    """The factor by which the times of DeploymentConfig, and the periods of alarms, are shorter than on AWS."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Names of local images by image URIs, which may contain `*`."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Addresses of other emulators by boto3's names of services; `*` stands for all services that this server lacks."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """Commands or Python functions that Lambda steps of pipelines run, by the names or ARNs of AWS Lambda functions."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    """Proxies of jobs: the addresses for `http`, `https` and `all`. The value of `no` lists the names that need no
    proxy."""
    ca_bundle: str = ""
    """File with the certificates that jobs trust, in PEM. If it is empty, jobs trust the certificates of their
    image."""

    events: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Targets of events, in the form of `event_settings`."""

    def to_flags(self) -> list[str]:
        """Return the flags with the same meaning."""
        flags = [f"--port={self.port}", f"--runtime={self.runtime}", f"--region={self.region}"]
        flags.append(f"--serverless-idle-seconds={self.serverless_idle_seconds}")
        flags += [f"--autoscaling-speed={self.autoscaling_speed}", f"--max-instances={self.max_instances}"]
        flags.append(f"--deployment-speed={self.deployment_speed}")
        aliases = [f"--image-alias={uri}={local}" for uri, local in self.images.items()]
        guards = [f"--guard-image={self.guard_image}"] if self.guard_image else []
        services = [f"--service={name}={url}" for name, url in self.services.items()]
        functions = [f"--function={name}={command}" for name, command in self.functions.items()]
        names = [f"--host-name={name}" for name in self.host_names]
        proxies = [f"--proxy={name}={value}" for name, value in self.proxies.items()]
        certificates = [f"--ca-bundle={Path(self.ca_bundle).absolute()}"] if self.ca_bundle else []
        events = [f"--event-target={json.dumps(table)}" for table in self.events]
        switches = {
            "--limits": self.limits,
            "--all-addresses": self.all_addresses,
            framework_images.OPTION: self.framework_images,
        }
        flags += [flag for flag, is_set in switches.items() if is_set]
        return [*flags, *aliases, *services, *functions, *guards, *names, *proxies, *certificates, *events]


def load(path: Path = FILE) -> Config:
    """Return the settings of the file, or the defaults if there is no file.

    Raises:
        ConfigError: the file is not TOML, or has an unknown or invalid setting.
    """
    table = load_section(path, "local")
    defaults = asdict(Config())
    for name in table:
        if name not in defaults:
            raise ConfigError(f"{path}: [local] has no setting {name!r}; the settings are {', '.join(defaults)}")
    try:
        check_types(table)
        return merge_flags(Config(**table))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_types(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError if a value does not have the type of its setting."""
    defaults = asdict(Config())
    for name, value in settings.items():
        if type(value) is not type(defaults[name]):
            raise ConfigError(f"{name} must be {TYPE_NAMES[type(defaults[name])]}, not {value!r}")


def load_section(path: Path, name: str) -> dict[str, Any]:
    """Return a table of the file, or an empty table if the file or the table is missing.

    Raises:
        ConfigError: the file is not TOML, or has tables other than `SECTIONS`.
    """
    import tomllib  # this import is slow, and few commands read the file

    if not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # a number with 5000 digits raises ValueError instead of TOMLDecodeError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make it a file that you can read") from error
    for key, value in content.items():
        if key not in SECTIONS or not isinstance(value, dict):
            raise ConfigError(f"{path}: {key!r} is not one of the tables {' and '.join(f'[{s}]' for s in SECTIONS)}")
    section: dict[str, Any] = content.get(name, {})
    return section


def merge_flags(config: Config, **flags: Any) -> Config:
    """Return a config in which flags that are not None replace settings. Tables are merged.

    Raises:
        ConfigError: a value is invalid.
    """
    values = {item.name: flags[item.name] for item in fields(Config) if flags.get(item.name) is not None}
    for table_name in ("images", "services", "functions", "proxies"):
        if table_name in values:
            values[table_name] = {**getattr(config, table_name), **values[table_name]}
    result = replace(config, **values)
    _check(result)
    return result


def _check(config: Config) -> None:
    if config.runtime not in RUNTIMES:
        raise ConfigError(f"runtime {config.runtime!r} is unknown: choose one of {', '.join(RUNTIMES)}")
    if not 0 <= config.port <= MAX_PORT:
        raise ConfigError(f"port {config.port} must be a number from 0 to {MAX_PORT}")
    if config.serverless_idle_seconds < 1:
        raise ConfigError(f"serverless_idle_seconds {config.serverless_idle_seconds} must be at least 1")
    for name, maximum in MAXIMUMS.items():
        if not 1 <= (value := getattr(config, name)) <= maximum:
            raise ConfigError(f"{name} {value} must be a number from 1 to {maximum}")
    _check_names_and_addresses(config)
    _check_functions(config)
    _check_network(config)
    try:
        read_targets(config.events)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_functions(config: Config) -> None:
    for name, command in config.functions.items():
        if str(command) != command or not command.strip():
            raise ConfigError(
                f"[local.functions] {name!r} must be a command or a Python function such as handlers.py:approve, not "
                f"{command!r}"
            )


def _check_network(config: Config) -> None:
    for name, value in config.proxies.items():
        if name not in network_settings.PROXY_SETTING_NAMES:
            setting_names = ", ".join(network_settings.PROXY_SETTING_NAMES)
            raise ConfigError(f"[local.proxies] has no setting {name!r}; the settings are {setting_names}")
        if name != "no" and not PROXY_URL_PATTERN.fullmatch(str(value)):
            raise ConfigError(
                f"[local.proxies] {name} must be an address such as http://proxy.example.com:3128, without a user and "
                f"a password (docker's config.json may have them), not {hide_password(str(value))!r}"
            )
    try:
        network_settings.read_ca_bundle(config.ca_bundle)
    except OSError as error:
        raise ConfigError(
            f"ca_bundle {config.ca_bundle} must be a file with certificates in PEM: {error.strerror or error}"
        ) from error


def _check_names_and_addresses(config: Config) -> None:
    for uri, image in config.images.items():
        if not isinstance(image, str):
            raise ConfigError(f"images must map {uri!r} to the name of an image, not to {image!r}")
    for name in config.host_names:
        if not HOST_NAME_PATTERN.fullmatch(str(name)):
            raise ConfigError(f"host name {name!r} must be a name or an IPv4 address without a port")
    for service, url in config.services.items():
        if not EMULATOR_URL_PATTERN.fullmatch(str(url)):
            raise ConfigError(
                f"[local.services] {service!r} must be an address such as http://127.0.0.1:5000, not {url!r}"
            )
