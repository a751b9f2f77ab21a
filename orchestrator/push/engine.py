"""Images of jobs in the Docker engine, and their upload. The engine sends only the layers that a registry lacks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from docker.errors import ImageNotFound

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.images import REVISION_LABEL, VARIANT_LABEL, get_local_image_name
from microjobs_orchestrator.push.tags import Image, TaggedImage, format_arguments
from microjobs_orchestrator.registry_logins import RegistryLogin

if TYPE_CHECKING:
    from docker import DockerClient

TIMEOUT_SECONDS = 600
"""Time limit for each answer of the engine: a registry needs minutes to check a large layer."""
REFUSAL_TEXTS = ("denied", "unauthorized", "immutable", "authentication required", "no basic auth credentials")
"""Texts in errors of a registry after which another attempt would fail, too."""


def read_image(client: "DockerClient", job: str, variant: str) -> Image:
    """Return a job's image.

    Raises:
        CommandError: the image is not built.
    """
    name = get_local_image_name(job, variant)
    try:
        image = client.images.get(name)
    except ImageNotFound:
        build = f"microjobs build {format_arguments([job], variant)}"
        raise CommandError(f"image {name} is not built: `{build}` builds it") from None
    platform = f"{image.attrs['Os']}/{image.attrs['Architecture']}"
    media_type = (image.attrs.get("Descriptor") or {}).get("mediaType", "")
    labels = image.labels
    return Image(
        job=job,
        name=name,
        id=str(image.id),
        revision=labels.get(REVISION_LABEL, ""),
        platform=platform,
        media_type=media_type,
        variant=labels.get(VARIANT_LABEL, "cpu"),
    )


@dataclass
class UploadProgress:
    """Progress of a push, from the engine's events."""

    layer_statuses: dict[str, str] = field(default_factory=dict)
    """The latest status of each layer."""
    sent_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes sent per layer, before compression."""
    total_bytes: dict[str, int] = field(default_factory=dict)
    error: str = ""

    def update(self, event: Mapping[str, Any]) -> None:
        """Update the progress from one event."""
        self.error = event.get("error", self.error)
        if layer := event.get("id"):
            self.layer_statuses[layer] = event["status"]
            detail = event.get("progressDetail") or {}
            if "current" in detail:
                self.sent_bytes[layer] = detail["current"]
                self.total_bytes[layer] = max(detail.get("total", 0), detail["current"])

    @property
    def sent_layer_count(self) -> int:
        """The number of layers that were sent."""
        return sum(status == "Pushed" for status in self.layer_statuses.values())

    @property
    def existing_layer_count(self) -> int:
        """The number of layers that the registry already had, in this repository or in another repository."""
        return sum(
            status.startswith(("Layer already exists", "Mounted from")) for status in self.layer_statuses.values()
        )

    def __str__(self) -> str:
        text = f"{self.sent_layer_count + self.existing_layer_count} of {len(self.layer_statuses)} layers"
        if self.total_bytes:
            sent, total = (sum(layers.values()) / 1e6 for layers in (self.sent_bytes, self.total_bytes))
            text += f", {sent:.1f} of {total:.1f} MB"
        is_retrying = any(status.startswith("Retrying") for status in self.layer_statuses.values())
        return f"{text}, connection lost, trying again" if is_retrying else text


def push_image(
    client: "DockerClient",
    tagged_image: TaggedImage,
    repository: str,
    login: RegistryLogin | None,
    show: Callable[[UploadProgress], None],
) -> UploadProgress:
    """Push an image to a repository.

    Args:
        show: called with the progress after each event.

    Raises:
        CommandError: the registry refuses the image, or the connection breaks and the engine stops the upload.
    """
    upload, image, tag = UploadProgress(), tagged_image.image, tagged_image.tag
    auth_config = login.make_auth_config() if login else {}
    with _tag_temporarily(client, image.id, repository, tag):
        for event in client.api.push(repository, tag, stream=True, decode=True, auth_config=auth_config):
            upload.update(event)
            show(upload)
    if upload.error:
        raise make_upload_error(f"{repository}:{tag}", format_arguments([image.job], image.variant), upload)
    return upload


@contextmanager
def _tag_temporarily(client: "DockerClient", image_id: str, repository: str, tag: str) -> Iterator[None]:
    """Give the image a name in the registry during the block, because engines push by name.

    A name that the image did not have before is then removed, because it would keep each pushed image on the disk.
    """
    name = f"{repository}:{tag}"
    existed = name in client.images.get(image_id).tags
    client.api.tag(image_id, repository, tag)
    try:
        yield
    finally:
        if not existed:
            with suppress(ImageNotFound):  # a concurrent push of the same image has removed the name
                client.api.remove_image(name, noprune=True)


def make_upload_error(target: str, arguments: str, upload: UploadProgress) -> CommandError:
    """Return the error for an upload that failed.

    Args:
        target: the URI with the tag.
        arguments: arguments of `microjobs push` for another attempt.
    """
    if any(text in upload.error.lower() for text in REFUSAL_TEXTS):
        return CommandError(f"the registry refuses {target}: {upload.error}; check the permissions of your login")
    stored_layer_count = upload.sent_layer_count + upload.existing_layer_count
    return CommandError(
        f"the push of {target} failed with {stored_layer_count} of {len(upload.layer_statuses)} layers in the "
        f"registry: {upload.error}; `microjobs push {arguments}` sends the missing layers"
    )
