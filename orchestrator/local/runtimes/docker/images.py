"""Images of a Docker engine."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import docker
from docker.errors import APIError

from microjobs_orchestrator import docker_engine
from microjobs_orchestrator.local import framework_images
from microjobs_orchestrator.local.own_images import JOBS_FOLDER, find_registry
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Image, MachineFailedError
from microjobs_orchestrator.local.runtimes.docker import pulling
from microjobs_orchestrator.local.runtimes.docker.engine import EngineUnreachableError, retry_while_unreachable


def prepare(client: docker.DockerClient, name: str, stopped: threading.Event | None = None) -> str | None:
    """Pull an image unless the engine has it. Return a sentence for logs if the image runs emulated.

    Raise CannotRunError if the engine cannot get the image, or if `stopped` is set during the pull. Raise
    MachineFailedError if the engine does not answer.
    """
    try:
        if retry_while_unreachable(lambda: client.images.get(name)) is None:
            pulling.pull(client, name, make_missing_image_remedy(name), stopped)
        return retry_while_unreachable(lambda: describe_emulation(client, name))
    except APIError as error:
        raise CannotRunError(f"image name {name!r} is not valid: {error.explanation}") from error
    except EngineUnreachableError as error:
        raise MachineFailedError(str(error)) from error


def list_images(client: docker.DockerClient) -> Sequence[Image]:
    """Return the images that have a name; none if the engine does not answer."""
    try:
        images = retry_while_unreachable(lambda: docker_engine.list_images(client)) or ()
    except EngineUnreachableError:
        return ()
    return [
        Image(
            tuple(item["RepoTags"]), _find_digest(item), item["Size"], float(item["Created"]), item.get("Labels") or {}
        )
        for item in images
        if item["RepoTags"]
    ]


def make_missing_image_remedy(image: str) -> str:
    """Return a remedy for a missing image. `microjobs build` builds the images of this repository only."""
    registry, _, name = image.partition("@")[0].rpartition("/")
    job, _, tag = name.partition(":")
    if registry == find_registry() and (JOBS_FOLDER / job / "image.yml").is_file():
        return f"run `microjobs build {job}{' --variant cuda' if tag.endswith('-cuda') else ''}`"
    return framework_images.format_hint(image) + (
        f"build it (`docker build --tag {image} FOLDER`), {pulling.make_login_remedy(image)}, "
        "or give the name of an image of this machine with --image-alias"
    )


def read_variables(client: docker.DockerClient, name: str) -> dict[str, str]:
    """Return the environment variables that an image sets."""
    items = client.images.get(name).attrs["Config"].get("Env") or ()
    return {variable: value for variable, _, value in (item.partition("=") for item in items)}


def describe_emulation(client: docker.DockerClient, name: str) -> str | None:
    """Return a sentence about an image that the engine's machine cannot run natively; None if it can."""
    architecture = str(client.images.get(name).attrs.get("Architecture", ""))
    machine = docker_engine.get_architecture(client)
    if docker_engine.is_native(architecture, machine):
        return None
    return (
        f"image {name} is for {architecture}, but the engine's machine is {machine}: it runs emulated, which is "
        f"slower; without an emulator, it does not run. An image for linux/{machine} runs natively"
    )


def _find_digest(image: Mapping[str, Any]) -> str:
    """Return an image's digest in its registry, or the id of an image that was only built on this machine."""
    digests = [reference.partition("@")[2] for reference in image.get("RepoDigests") or ()]
    return str(next(filter(None, digests), image["Id"]))
