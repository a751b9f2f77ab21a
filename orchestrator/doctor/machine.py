"""Checks of this machine. Each check is a function that returns or yields findings; `examine` calls all of them."""

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import requests
from docker import DockerClient
from docker.errors import DockerException

from microjobs_orchestrator import docker_engine, images, ssh_engine
from microjobs_orchestrator.doctor.finding import Finding
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from microjobs_orchestrator.local.package_settings import choose_certificates, hide_password

LIMITS_REMEDY = "boot this machine with version 2 of cgroups, as docs/using/engines.md explains"
MIN_COMPOSE_VERSION = (2, 24, 4)
"""Minimum version of Compose: older versions do not support `!override` and inline configs, which the compose files
use."""
MIN_BUILDX_VERSION = (0, 12, 0)
MIN_DISK_BYTES = 8 << 30
"""Minimum free disk space. The images take 4 GB, and a build takes another 4 GB until it ends."""
MIN_MEMORY_BYTES = 4 << 30
"""Minimum memory. Three trainers run at the same time, and each needs 0.6 to 1 GB."""
INDEX_VARIABLES = ("INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_REMEDY = "check the network and the proxy, or set INDEX_URL or LOCAL_PACKAGES: docs/maintaining/building.md"
TLS_REMEDY = (
    f"behind a proxy that inspects TLS, set SSL_CERT_FILE to a file with its CA certificate; otherwise, {INDEX_REMEDY}"
)


def examine(home: Home, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Run all checks and yield each finding as soon as it is known."""
    yield check_python(sys.version_info[:3])
    engine_findings = list(check_engine(environ))
    yield from engine_findings
    if engine_findings[0].level == "ok":
        yield check_process_runtime(required=False)
        yield from check_build_tools()
        yield from check_images()
    else:
        yield check_process_runtime(required=True)
        yield check_package_index(environ)
    yield from check_disk_and_memory(home)
    yield from check_local_packages(environ)
    yield check_local_server(home)


def check_python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Finding("ok", f"Python {text}")
    message = f"Python {text} is not supported: the jobs' locks are for Python 3.11"
    return Finding("problem", message, "uv python install 3.11 && make setup")


# --- the Docker engine ---


def check_engine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the engine answers, and report what it cannot do."""
    address = docker_engine.find_address(environ)
    try:
        with closing(docker_engine.connect(timeout=10, environ=environ)) as client:
            findings = list(describe_engine(client))
    except DockerException as error:
        finding = explain_unreachable_engine(str(error), address, from_variable=bool(environ.get("DOCKER_HOST")))
        findings = [_suggest_rootless_engine(finding, address, environ)]
    yield from findings


def _suggest_rootless_engine(finding: Finding, address: str, environ: Mapping[str, str]) -> Finding:
    """Return the finding about an unreachable engine with another remedy, if this user has a rootless engine."""
    rootless_address = docker_engine.find_rootless_address(environ)
    if address != docker_engine.DEFAULT_SOCKET or not rootless_address:
        return finding
    return dataclasses.replace(finding, remedy=f"use your rootless engine: `export DOCKER_HOST={rootless_address}`")


def describe_engine(client: DockerClient) -> Iterator[Finding]:
    """Yield the engine's name and version, and then its differences from a Docker engine that root runs on this
    machine."""
    is_podman, is_rootless = docker_engine.is_podman(client), docker_engine.is_rootless(client)
    name = f"{'Podman' if is_podman else 'Docker engine'} {client.version()['Version']}"
    gpus = ", with NVIDIA's runtime for GPUs" if "nvidia" in client.info().get("Runtimes", {}) else ""
    yield Finding("ok", f"{name}{', rootless' if is_rootless else ''}{gpus}")
    if emulated := docker_engine.list_emulated_images(client):
        architecture = docker_engine.get_architecture(client)
        names = ", ".join(f"{name} ({image_architecture})" for name, image_architecture in sorted(emulated.items()))
        message = f"images for an architecture other than the engine's ({architecture}) run emulated: {names}"
        yield Finding("note", message, f"build or pull them for linux/{architecture}, to run them faster")
    if docker_engine.is_remote(client):
        message = "the engine runs on another machine: inputs are copied, and AWS clients in jobs connect through it"
        yield Finding(
            "note", message, "to use this machine's engine: `docker context use default` and `unset DOCKER_HOST`"
        )
    elif is_podman or is_rootless:
        clients = ", and AWS clients in jobs connect through the engine" if is_rootless else ""
        yield Finding("note", f"inputs are copied, except in FastFile mode{clients}", "see docs/using/engines.md")
    if not docker_engine.can_limit_containers(client):
        yield Finding("note", docker_engine.NO_LIMITS_MESSAGE, LIMITS_REMEDY)


def explain_unreachable_engine(error: str, address: str, *, from_variable: bool) -> Finding:
    """Return the finding for an engine that does not answer.

    Args:
        error: the client's message.
        from_variable: whether the address comes from DOCKER_HOST, and not from the Docker CLI's current context.
    """
    if address.startswith(ssh_engine.PREFIX):
        message = f"no Docker engine answers at {address}: {error}"
        remedy = "let ssh log in with a key, and install docker on that machine; or unset DOCKER_HOST"
        return Finding("problem", message, remedy)
    if "Permission denied" in error or "PermissionError" in error:
        message = "this user is not allowed to use the Docker engine's socket"
        return Finding("problem", message, '`sudo usermod -aG docker "$USER"`, then log in again')
    if from_variable:
        message = f"no Docker engine answers at DOCKER_HOST={address}"
        return Finding("problem", message, "start it, or unset DOCKER_HOST")
    if address != docker_engine.DEFAULT_SOCKET:
        message = f"no Docker engine answers at {address}, the address of Docker's current context"
        return Finding("problem", message, "start it, or `docker context use default`")
    return Finding(
        "note",
        "no Docker engine answers: jobs run as processes in virtual environments",
        "start Docker, or install it: https://docs.docker.com/engine/install/",
    )


def check_build_tools() -> Iterator[Finding]:
    """Check the tools that build images: make, Compose and Buildx."""
    if shutil.which("make") is None:
        yield Finding("problem", "make is not installed, and images cannot be built without it", "install make")
    yield check_plugin("Compose", _run("docker", "compose", "version", "--short"), MIN_COMPOSE_VERSION)
    yield check_plugin("Buildx", _run("docker", "buildx", "version"), MIN_BUILDX_VERSION)


def check_plugin(plugin: str, output: str, min_version: tuple[int, ...]) -> Finding:
    """Return the finding for a Docker plugin whose version command printed `output`."""
    remedy = f"install Docker {plugin} {'.'.join(map(str, min_version))} or newer"
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        message = f"Docker {plugin} is not installed, and images cannot be built without it"
        return Finding("problem", message, remedy)
    if tuple(map(int, match.groups())) < min_version:
        return Finding("problem", f"Docker {plugin} {match[0]} is too old", remedy)
    return Finding("ok", f"Docker {plugin} {match[0]}")


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def check_images() -> Iterator[Finding]:
    """Check that the images of all jobs are built, from the current code."""
    try:
        jobs = images.list_jobs()
    except CommandError:
        message = "the package is installed without the repository: the images of the ready-made jobs cannot be built"
        yield Finding("note", message, "git clone https://github.com/microjobs/microjobs")
        return
    labels = images.read_image_labels()
    missing = [job for job in jobs if images.get_local_image_name(job) not in labels]
    stale = [job for job in jobs if images.is_stale(job, labels.get(images.get_local_image_name(job), {}))]
    if missing:
        yield Finding("problem", f"images are not built: {', '.join(missing)}", f"microjobs build {' '.join(missing)}")
    if stale:
        message = f"images are older than their code: {', '.join(stale)}"
        yield Finding("note", message, f"microjobs build {' '.join(stale)}")
    if not missing and not stale:
        yield Finding("ok", f"{len(jobs)} images, built from the current code")


# --- jobs as processes ---


def check_process_runtime(*, required: bool) -> Finding:
    """Check that jobs can run in virtual environments.

    Args:
        required: whether jobs have no other runtime.
    """
    missing = [module for module in ("venv", "ensurepip") if importlib.util.find_spec(module) is None]
    if shutil.which("uv") is not None and "ensurepip" in missing:
        missing.remove("ensurepip")  # uv installs packages without pip
    if missing:
        message = f"this Python has no {' and no '.join(missing)}: jobs cannot run as processes"
        remedy = "`apt install python3-venv`, or install uv: https://docs.astral.sh/uv/"
        return Finding("problem" if required else "note", message, remedy)
    return Finding("ok", "jobs can run as processes" if required else "jobs can also run as processes")


def check_package_index(environ: Mapping[str, str]) -> Finding:
    """Check that the index of the jobs' Python packages answers."""
    url = next((environ[name] for name in INDEX_VARIABLES if environ.get(name)), DEFAULT_INDEX).rstrip("/")
    index = f"the package index {hide_password(url)}"
    try:
        with requests.get(f"{url}/pip/", timeout=10, verify=choose_certificates(environ), stream=True) as response:
            status = response.status_code
    except (requests.RequestException, OSError) as error:
        message = f"{index} does not answer ({type(error).__name__}): jobs' packages are installed from it"
        is_tls_error = isinstance(error, requests.exceptions.SSLError)
        return Finding("problem", message, TLS_REMEDY if is_tls_error else INDEX_REMEDY)
    if status >= 400:
        return Finding("problem", f"{index} answers {status} for pip", INDEX_REMEDY)
    return Finding("ok", f"{index} answers")


def check_local_packages(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check LOCAL_PACKAGES, the folder of packages for builds, if it is set."""
    folder = environ.get("LOCAL_PACKAGES")
    if folder and not Path(folder).is_dir():
        yield Finding("problem", f"LOCAL_PACKAGES={folder} is not a folder", "create it, or unset LOCAL_PACKAGES")


# --- both runtimes ---


def check_disk_and_memory(home: Home) -> Iterator[Finding]:
    """Check disk space and memory."""
    folder = next(path for path in (home.root, *home.root.parents) if path.exists())
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield Finding(
            "problem", f"the disk of {folder} is read-only", f"choose a folder on another disk with {HOME_VARIABLE}"
        )
    else:
        free_bytes = shutil.disk_usage(folder).free
        yield _check_size("disk space", free_bytes, MIN_DISK_BYTES, f"delete files on the disk of {folder}")
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _check_size("memory", memory_bytes, MIN_MEMORY_BYTES, "use --no-tuning, which trains one model at a time")


def _check_size(quantity: str, size_bytes: int, min_bytes: int, remedy: str) -> Finding:
    message = f"{size_bytes / 2**30:.1f} GB of {quantity}"
    return Finding("ok", message) if size_bytes >= min_bytes else Finding("note", f"only {message}", remedy)


def check_local_server(home: Home) -> Finding:
    """Check whether a local server runs, or has ended without removing its file."""
    try:
        address = control.find_server(home)
    except CommandError as error:
        return Finding("problem", str(error))
    if address is not None:
        return Finding("ok", f"the local server answers at {address.url} (runtime {address.runtime})")
    if home.server_file.exists():
        return Finding("note", f"{home.server_file} exists, but its server does not answer", "microjobs local down")
    return Finding("ok", "no local server is running: each run starts its own")
