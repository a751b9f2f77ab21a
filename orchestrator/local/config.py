"""What a server is started with: flags, and `microjobs.toml` in the current folder for those that are not given.

[local]
port = 4577
runtime = "auto"
limits = false
guard_image = "python:3.11-slim-bookworm"

[local.images]
"*.dkr.ecr.*.amazonaws.com/sagemaker-scikit-learn:*" = "my-scikit-learn:dev"

[local.services]
secretsmanager = "http://127.0.0.1:5000"
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.identity import REGION

FILE = Path("microjobs.toml")
SECTIONS = ("local", "aws")
"""The tables that the file may have."""
PORT = 4577
LAST_PORT = 65_535
RUNTIMES = ("auto", "docker", "process")


class ConfigError(UsageError):
    """The file or a flag is wrong, with what to do."""


@dataclass(frozen=True)
class Config:
    """How to serve."""

    port: int = PORT
    """0: any that is free."""
    runtime: str = "auto"
    region: str = REGION
    limits: bool = False
    """Give hosts their instance type's processors and memory."""
    guard_image: str = ""
    """An image with Python for the containers that guard hosts' networks; empty: one that the engine has."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Local images' names by image URIs, which may have `*`."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Addresses of other emulators by boto3's names of services, or `*` for all that this server does not answer."""

    def arguments(self) -> list[str]:
        """The flags that say the same."""
        flags = [f"--port={self.port}", f"--runtime={self.runtime}", f"--region={self.region}"]
        aliases = [f"--image-alias={uri}={local}" for uri, local in self.images.items()]
        guards = [f"--guard-image={self.guard_image}"] if self.guard_image else []
        services = [f"--service={name}={url}" for name, url in self.services.items()]
        return [*flags, *aliases, *services, *guards, *(["--limits"] if self.limits else [])]


def read(path: Path = FILE) -> Config:
    """The file's settings; the defaults if there is no file.

    Raises:
        ConfigError: it is not TOML, or has a setting that there is not.
    """
    table = read_section(path, "local")
    defaults = asdict(Config())
    for name, value in table.items():
        if name not in defaults:
            raise ConfigError(f"{path}: [local] has no setting {name!r}; there are {', '.join(defaults)}")
        if type(value) is not type(defaults[name]):
            raise ConfigError(f"{path}: {name} must be like {defaults[name]!r}, not {value!r}")
    for uri, image in table.get("images", {}).items():
        if not isinstance(image, str):
            raise ConfigError(f"{path}: [local.images] must give {uri!r} the name of an image, not {image!r}")
    for service, url in table.get("services", {}).items():
        check_service(f"{path}: [local.services]", service, url)
    try:
        return changed(Config(**table))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_service(where: str, service: str, url: object) -> None:
    """Check the address of another emulator.

    Raises:
        ConfigError: it is not one.
    """
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", url):
        raise ConfigError(f"{where} must give {service!r} an address such as http://127.0.0.1:5000, not {url!r}")


def read_section(path: Path, name: str) -> dict[str, Any]:
    """A table of the file; an empty one if the file or the table is missing.

    Raises:
        ConfigError: the file is not TOML, or has other tables than `SECTIONS`.
    """
    import tomllib  # only commands that read the file wait for it

    if not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make it a file that you can read") from error
    for key, value in content.items():
        if key not in SECTIONS or not isinstance(value, dict):
            raise ConfigError(f"{path}: {key!r} is not one of the tables {' and '.join(f'[{s}]' for s in SECTIONS)}")
    section: dict[str, Any] = content.get(name, {})
    return section


def changed(config: Config, **flags: Any) -> Config:
    """A config with the flags that are given (not None) put in; aliases are added to.

    Raises:
        ConfigError: the runtime is unknown, or there is no such port.
    """
    given = {item.name: flags[item.name] for item in fields(Config) if flags.get(item.name) is not None}
    for tables in ("images", "services"):
        if tables in given:
            given[tables] = {**getattr(config, tables), **given[tables]}
    result = replace(config, **given)
    if result.runtime not in RUNTIMES:
        raise ConfigError(f"runtime {result.runtime!r} is unknown: take one of {', '.join(RUNTIMES)}")
    if not 0 <= result.port <= LAST_PORT:
        raise ConfigError(f"port {result.port} must be a number from 0 to {LAST_PORT}")
    return result
