"""Looks at this machine for what runs need: each finding says what is the matter and what mends it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from microjobs_orchestrator import images
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.workflows.place import local_image

Level = Literal["well", "note", "mend", "unknown"]

DISK_BYTES = 8 << 30
"""The images take 4 GB, and building them as much again for a while."""
MEMORY_BYTES = 4 << 30
"""Three trainers at a time take 0.6 to 1 GB each."""
COMPOSE = (2, 24, 4)
"""The first that knows `!override` and inline configs, which the compose files use."""
BUILDX = (0, 12, 0)
INDEX_VARIABLES = ("INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_SECONDS = 10
DEFAULT_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Finding:
    """What was found. A note does no harm as it is; what is to be mended stops some run; unknown is what could not
    be looked at."""

    level: Level
    message: str
    remedy: str = ""


def examine(home: Home, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """All findings, as they are made."""
    yield python()
    engine = list(engine_findings(environ))
    yield from engine
    answers = not any(finding.level != "well" for finding in engine[:1])
    yield from process_runtime(required=not answers)
    if not answers:
        yield package_index(environ)
    if answers:
        yield from tools()
        yield from image_findings()
    yield from resources(home)
    yield from local_packages(environ)
    yield server_finding(home)


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    text = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Finding("well", f"Python {text}")
    return Finding("mend", f"Python {text}: the jobs' locks are made for 3.11", "uv python install 3.11 && make setup")


# --- the engine ---


def engine_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a Docker engine answers, and whether it is this machine's."""
    from docker.errors import DockerException

    from microjobs_orchestrator import docker_engine

    try:
        client = docker_engine.connect(timeout=10, environ=environ)
        try:
            version = client.version()["Version"]
            gpus = "nvidia" in client.info().get("Runtimes", {})
        finally:
            client.close()
    except DockerException as error:
        yield no_engine(str(error), environ.get("DOCKER_HOST", ""), docker_context())
        return
    yield Finding("well", f"Docker engine {version}" + (", with NVIDIA's runtime for GPUs" if gpus else ""))
    where = environ.get("DOCKER_HOST") or docker_context()
    if where.startswith(("tcp://", "ssh://", "http")):
        yield Finding(
            "mend",
            f"Docker talks to another machine, {where}: its engine does not see this machine's folders",
            "`docker context use default` and `unset DOCKER_HOST`, or run with `--runtime process`",
        )


def no_engine(error: str, host: str, context: str) -> Finding:
    """What an engine's silence means.

    Args:
        error: what the client said.
        host: DOCKER_HOST, if it is set.
        context: the address of the CLI's context, which the client does not look at.
    """
    if "Permission denied" in error or "PermissionError" in error:
        return Finding(
            "mend",
            "the Docker engine's socket may not be used by this user",
            '`sudo usermod -aG docker "$USER"`, then log in again',
        )
    if host:
        return Finding("mend", f"no Docker engine answers at DOCKER_HOST={host}", "start it, or unset DOCKER_HOST")
    if context and context != DEFAULT_SOCKET:
        return Finding("mend", f"the Docker engine is at {context}", f"export DOCKER_HOST={context}")
    return Finding(
        "note",
        "no Docker engine answers: jobs run as processes in virtual environments",
        "start Docker, or install it: https://docs.docker.com/engine/install/",
    )


def docker_context() -> str:
    """The address of the Docker CLI's current context; empty if it cannot be known."""
    command = ["docker", "context", "inspect"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        contexts: list[dict[str, Any]] = json.loads(answer)
        return str(contexts[0]["Endpoints"]["docker"]["Host"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError):
        return ""


def tools() -> Iterator[Finding]:
    """What builds images: make, Compose, Buildx."""
    if shutil.which("make") is None:
        yield Finding("mend", "make is not installed: images cannot be built with it", "install make")
    for name, command, least in (
        ("Compose", ["docker", "compose", "version", "--short"], COMPOSE),
        ("Buildx", ["docker", "buildx", "version"], BUILDX),
    ):
        yield tool(name, _output(command), least)


def tool(name: str, output: str, least: tuple[int, ...]) -> Finding:
    """A Docker plugin's finding, from what it says of its version."""
    needed = ".".join(map(str, least))
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        return Finding("mend", f"Docker {name} is missing: it builds the images", f"install Docker {name} {needed}")
    version = tuple(int(part) for part in match.groups())
    if version < least:
        return Finding("mend", f"Docker {name} {match[0]} is too old", f"install Docker {name} {needed} or newer")
    return Finding("well", f"Docker {name} {match[0]}")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def image_findings() -> Iterator[Finding]:
    """Images that are not built, or not from the code that is here."""
    try:
        names = images.jobs()
    except LauncherError as error:
        yield Finding("mend", str(error), "git clone https://github.com/microjobs/microjobs")
        return
    there = images.labels()
    missing = [job for job in names if local_image(job) not in there]
    stale = [
        job
        for job in names
        if (label := there.get(local_image(job), {}).get(images.REVISION))
        and images.changed_since(job, label.removesuffix("-dirty"))
    ]
    if missing:
        yield Finding("mend", f"images are not built: {', '.join(missing)}", f"microjobs build {' '.join(missing)}")
    if stale:
        yield Finding(
            "note", f"images are older than their code: {', '.join(stale)}", f"microjobs build {' '.join(stale)}"
        )
    if not missing and not stale:
        yield Finding("well", f"{len(names)} images, built from this code")


# --- this machine ---


def process_runtime(*, required: bool, find: Callable[[str], object] = importlib.util.find_spec) -> Iterator[Finding]:
    """Whether jobs can run in virtual environments."""
    absent = [module for module in ("venv", "ensurepip") if find(module) is None]
    if shutil.which("uv") is not None and "ensurepip" in absent:
        absent.remove("ensurepip")  # uv installs without pip
    if absent:
        level: Level = "mend" if required else "note"
        message = f"this Python has no {' and no '.join(absent)}: jobs cannot run as processes"
        yield Finding(level, message, "`apt install python3-venv`, or install uv: https://docs.astral.sh/uv/")
    else:
        yield Finding("well", "jobs can also run as processes" if not required else "jobs can run as processes")


def package_index(environ: Mapping[str, str]) -> Finding:
    """Whether the index that jobs' packages are installed from answers."""
    import requests

    url = next((environ[name] for name in INDEX_VARIABLES if environ.get(name)), DEFAULT_INDEX).rstrip("/")
    shown = re.sub(r"//[^/@]*@", "//", url)  # without a password
    certificates = environ.get("SSL_CERT_FILE") or environ.get("PIP_CERT") or True
    remedy = "check the network and the proxy, or set INDEX_URL or LOCAL_PACKAGES: docs/maintaining/building.md"
    try:
        answer = requests.get(f"{url}/pip/", timeout=INDEX_SECONDS, verify=certificates, stream=True)
        answer.close()
    except (requests.RequestException, OSError) as error:
        why = type(error).__name__
        if isinstance(error, requests.exceptions.SSLError):
            remedy = (
                "behind a gateway that inspects TLS, set SSL_CERT_FILE to a file with its CA certificate; or " + remedy
            )
        return Finding(
            "mend", f"the package index {shown} does not answer ({why}): jobs' packages come from it", remedy
        )
    if not answer.ok:
        return Finding("mend", f"the package index {shown} answers {answer.status_code} for pip", remedy)
    return Finding("well", f"the package index {shown} answers")


def resources(home: Home) -> Iterator[Finding]:
    """Disk and memory."""
    folder = next(path for path in (home.root, *home.root.parents) if path.exists())
    yield amount("disk space", shutil.disk_usage(folder).free, DISK_BYTES, f"free some on the disk of {folder}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield amount("memory", memory, MEMORY_BYTES, "use --no-tuning, which trains one model at a time")


def amount(what: str, there: int, needed: int, remedy: str) -> Finding:
    message = f"{there / 2**30:.1f} GB of {what}"
    return Finding("well", message) if there >= needed else Finding("note", f"only {message}", remedy)


def local_packages(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The folder of packages for builds behind a gateway, if one is set."""
    folder = environ.get("LOCAL_PACKAGES")
    if folder and not Path(folder).is_dir():
        yield Finding("mend", f"LOCAL_PACKAGES={folder} is no folder", "make it, or unset LOCAL_PACKAGES")


def server_finding(home: Home) -> Finding:
    """The local server: running, not running, or gone without a word."""
    from microjobs_orchestrator.local import control

    try:
        address = control.running(home)
    except LauncherError as error:
        return Finding("mend", str(error))
    if address is not None:
        return Finding("well", f"the local server answers at {address.url} (runtime {address.runtime})")
    if home.server.exists():
        return Finding("note", f"{home.server} is there, but its server does not answer", "microjobs local down")
    return Finding("well", "no local server is running: each run starts one for itself")
