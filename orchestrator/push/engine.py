"""The Docker engine's part: what images it has, and sending one, of which it sends the missing layers only."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from docker.errors import ImageNotFound

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.images import REVISION, VARIANT, local_image
from microjobs_orchestrator.push.credentials import Credentials
from microjobs_orchestrator.push.plan import Image, asked

if TYPE_CHECKING:
    from docker import DockerClient

SECONDS = 600
"""How long the engine may be silent: a registry takes its time to check a large layer."""
REFUSALS = ("denied", "unauthorized", "immutable", "authentication required", "no basic auth credentials")
"""What registries say that a second try would not change."""


def find(client: "DockerClient", job: str, variant: str) -> Image:
    """A job's image.

    Raises:
        LauncherError: it is not built.
    """
    name = local_image(job, variant)
    try:
        found = client.images.get(name)
    except ImageNotFound:
        raise LauncherError(f"no image {name}: `microjobs build {asked([job], variant)}` makes it") from None
    platform = f"{found.attrs['Os']}/{found.attrs['Architecture']}"
    media_type = (found.attrs.get("Descriptor") or {}).get("mediaType", "")
    labels = found.labels
    return Image(job, name, str(found.id), labels.get(REVISION, ""), platform, media_type, labels.get(VARIANT, "cpu"))


@dataclass
class Upload:
    """How far a push is, from what the engine says."""

    layers: dict[str, str] = field(default_factory=dict)
    """What the engine said last of each."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes by layer, before compression."""
    sizes: dict[str, int] = field(default_factory=dict)
    error: str = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """Learn from an event of the engine's stream."""
        self.error = event.get("error", self.error)
        if layer := event.get("id"):
            self.layers[layer] = event["status"]
            detail = event.get("progressDetail") or {}
            if "current" in detail:
                self.sent[layer] = detail["current"]
                self.sizes[layer] = max(detail.get("total", 0), detail["current"])

    @property
    def pushed(self) -> int:
        return sum(status == "Pushed" for status in self.layers.values())

    @property
    def there(self) -> int:
        """Layers that the registry had, in this repository or in another one."""
        return sum(status.startswith(("Layer already exists", "Mounted from")) for status in self.layers.values())

    @property
    def retrying(self) -> bool:
        return any(status.startswith("Retrying") for status in self.layers.values())

    def __str__(self) -> str:
        text = f"{self.pushed + self.there} of {len(self.layers)} layers"
        if self.sizes:
            text += f", {_megabytes(self.sent)} of {_megabytes(self.sizes)} MB"
        return f"{text}, connection lost, trying again" if self.retrying else text


def _megabytes(layers: Mapping[str, int]) -> str:
    return f"{sum(layers.values()) / 1e6:.1f}"


def push(
    client: "DockerClient",
    image: Image,
    repository: str,
    tag: str,
    credentials: Credentials | None,
    show: Callable[[Upload], None],
) -> Upload:
    """Send an image.

    Args:
        show: called with every step of the upload.

    Raises:
        LauncherError: the registry refused it, or the connection broke for good.
    """
    upload = Upload()
    login = credentials.for_engine() if credentials else {}
    with _tagged(client, image, repository, tag):
        events = client.api.push(repository, tag, stream=True, decode=True, auth_config=login)
        for event in events:
            upload.take(event)
            show(upload)
    if upload.error:
        raise failure(f"{repository}:{tag}", asked([image.job], image.variant), upload)
    return upload


@contextmanager
def _tagged(client: "DockerClient", image: Image, repository: str, tag: str) -> Iterator[None]:
    """Engines push by name only. The image has it for a while: for good, each push would keep an old image alive."""
    name = f"{repository}:{tag}"
    had = name in client.images.get(image.id).tags
    client.api.tag(image.id, repository, tag)
    try:
        yield
    finally:
        if not had:
            with suppress(ImageNotFound):  # another push of it has ended before
                client.api.remove_image(name, noprune=True)


def failure(target: str, words: str, upload: Upload) -> LauncherError:
    if any(word in upload.error.lower() for word in REFUSALS):
        return LauncherError(f"the registry refuses {target}: {upload.error}; check what your login may do there")
    there = upload.pushed + upload.there
    return LauncherError(
        f"pushing {target} broke off with {there} of {len(upload.layers)} layers there: {upload.error}; "
        f"`microjobs push {words}` again sends what is missing"
    )
