"""One push, in order: read the images, tag them, open the registry, upload, save the digests."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from microjobs_orchestrator import docker_engine, images, registry_logins
from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import ecr, engine, pushed_images
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.login import read_login
from microjobs_orchestrator.push.pushed_images import PushedImage
from microjobs_orchestrator.push.registry import Manifest, Registry
from microjobs_orchestrator.push.tags import TaggedImage, find_format_problem, format_arguments, read_source, tag_images
from microjobs_orchestrator.runs.progress import Progress, StepDisplay

if TYPE_CHECKING:
    from docker import DockerClient

PRINT_INTERVAL_SECONDS = 10.0
"""Seconds between two lines about an upload, if the output is not a terminal."""


@dataclass(frozen=True)
class PushOptions:
    """The arguments of `microjobs push`, completed from microjobs.toml."""

    jobs: Sequence[str] = ()
    """Empty for all jobs."""
    registry: str | None = None
    """`HOST[/PREFIX]`; None for the account's ECR."""
    allow_dirty: bool = False
    region: str | None = None
    profile: str | None = None
    variant: str = "cpu"


def push(options: PushOptions, home: Home, console: Console) -> list[PushedImage]:
    """Push images, and save the digest of each image as soon as the registry has the image.

    Raises:
        UsageError: a job does not exist, or the registry or its login is invalid.
        CommandError: an image may not be pushed, the registry refuses it, or the connection broke.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: ECR refuses a request, or does not answer.
        docker.errors.DockerException: no engine answers.
    """
    jobs = images.select_jobs(options.jobs, options.variant)
    with closing(docker_engine.connect(timeout=engine.TIMEOUT_SECONDS)) as client:
        tagged_images = _tag_images(client, jobs, options)
        with closing(open_registry(options, jobs, console)) as registry:
            # All tags are checked before the first upload, so that a wrong tag ends the push before anything is sent.
            manifests = [find_manifest(registry, tagged_image) for tagged_image in tagged_images]
            home.create()
            saved = []
            for tagged_image, manifest in zip(tagged_images, manifests, strict=True):
                if manifest is None:
                    manifest = _upload(client, registry, tagged_image, Progress(console))
                else:
                    console.print(f"{tagged_image.image.job}: {tagged_image.tag} is already in the registry")
                saved.append(_save(home, registry.destination, tagged_image, manifest.digest))
    return saved


def _tag_images(client: "DockerClient", jobs: Sequence[str], options: PushOptions) -> list[TaggedImage]:
    local_images = [engine.read_image(client, job, options.variant) for job in jobs]
    sources = [read_source(images.REPOSITORY, image.job, image.variant, image.revision) for image in local_images]
    return tag_images(list(zip(local_images, sources, strict=True)), allow_dirty=options.allow_dirty)


def open_registry(options: PushOptions, jobs: Sequence[str], console: Console) -> Registry:
    """Return a client of the registry, with a login. On ECR, also create the missing repositories.

    Raises:
        UsageError: the name of the registry is invalid; the registry is in another region or account; a region or a
            profile is given for a registry that is not ECR; or the login in the environment has no user or no password.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: ECR refuses a request, or does not answer.
    """
    target = Destination.parse(options.registry) if options.registry else None
    region = registry_logins.parse_ecr_region(target.host) if target else options.region
    if target and region is None:
        if options.region or options.profile:
            raise UsageError(f"--region and --profile are for ECR, and {target.host} is not ECR: omit them")
        return Registry(target, read_login(target.host))
    if target and options.region not in (None, region):
        raise UsageError(f"--registry {target} is in {region}, not in {options.region}: omit --region")
    with closing(registry_logins.connect_to_ecr(region, options.profile)) as client:
        own_host, login = registry_logins.log_in_to_ecr(client)
        if target:
            ecr.check_account(target.host, own_host)
        destination = target or Destination(own_host)
        for job in jobs:
            if ecr.create_missing_repository(client, destination.make_repository_name(job)):
                console.print(f"created repository {destination.make_repository_uri(job)}", soft_wrap=True)
    return Registry(destination, login)


def find_manifest(registry: Registry, tagged_image: TaggedImage) -> Manifest | None:
    """Return the manifest of an image's tag; None if the registry does not have the tag.

    Raises:
        CommandError: the tag belongs to another image, or SageMaker refuses the type of the manifest.
    """
    image = tagged_image.image
    manifest = registry.get_manifest(image.job, tagged_image.tag)
    if manifest is None:
        return None
    uri = registry.destination.make_image_uri(image.job, tagged_image.tag)
    if not manifest.describes(image):
        raise CommandError(
            f"{uri} already belongs to image {manifest.digest}, not to {image.name} of this machine: tags are never "
            "overwritten, so commit and build again, or use the image in the registry"
        )
    if problem := find_format_problem(manifest.media_type):
        rebuild = f"microjobs build {format_arguments([image.job], image.variant)}"
        raise CommandError(f"{uri} {problem}: delete that tag, then `{rebuild}` and push again")
    return manifest


def _upload(client: "DockerClient", registry: Registry, tagged_image: TaggedImage, progress: Progress) -> Manifest:
    job, destination = tagged_image.image.job, registry.destination
    with progress.step(f"Pushing {job}") as step:
        show = make_upload_printer(progress, step)
        upload = engine.push_image(client, tagged_image, destination.make_repository_uri(job), registry.login, show)
    progress.print_note(
        f"  {tagged_image.tag}: layers pushed {upload.sent_layer_count}, "
        f"already in the registry {upload.existing_layer_count}"
    )
    manifest = find_manifest(registry, tagged_image)
    if manifest is None:
        uri = destination.make_image_uri(job, tagged_image.tag)
        raise CommandError(f"{uri} was pushed, but the registry does not have it: push again")
    return manifest


def make_upload_printer(progress: Progress, step: StepDisplay) -> Callable[[engine.UploadProgress], None]:
    """Return a function that shows an upload: on a terminal at each call, otherwise at most once in
    `PRINT_INTERVAL_SECONDS`."""
    last_time = step.start_time

    def show(upload: engine.UploadProgress) -> None:
        nonlocal last_time
        if progress.console.is_terminal or time.monotonic() - last_time >= PRINT_INTERVAL_SECONDS:
            last_time = time.monotonic()
            progress.show_status(step, str(upload))

    return show


def _save(home: Home, destination: Destination, tagged_image: TaggedImage, digest: str) -> PushedImage:
    image, now = tagged_image.image, datetime.now(UTC).isoformat(timespec="seconds")
    pushed_image = PushedImage(
        uri=f"{destination.make_repository_uri(image.job)}@{digest}",
        tag=tagged_image.tag,
        revision=image.revision,
        image=image.id,
        time=now,
    )
    pushed_images.save(home, destination, image.job, pushed_image)
    return pushed_image
