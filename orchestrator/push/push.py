"""All of a push: look, decide, open the registry, send, write down."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from microjobs_orchestrator import docker_engine, images
from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import credentials, ecr, engine, record
from microjobs_orchestrator.push.credentials import Credentials
from microjobs_orchestrator.push.plan import Destination, Item, asked, image_uri, make_plan, refused_format
from microjobs_orchestrator.push.record import Pushed
from microjobs_orchestrator.push.registry import Manifest, Registry
from microjobs_orchestrator.push.source import read_source
from microjobs_orchestrator.runs.progress import Progress, StepDisplay

if TYPE_CHECKING:
    from docker import DockerClient

PLAIN_SECONDS = 10.0
"""Between two lines about an upload where nothing can change in place."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    jobs: Sequence[str] = ()
    """All, if there are none."""
    registry: str | None = None
    """`HOST[/PREFIX]`; the account's ECR if it is not given."""
    allow_dirty: bool = False
    region: str | None = None
    profile: str | None = None
    variant: str = "cpu"


@dataclass(frozen=True)
class Opened:
    """A registry that lets us in."""

    destination: Destination
    credentials: Credentials | None


def push(request: Request, home: Home, console: Console) -> list[Pushed]:
    """Push images; each is written down as soon as it is there.

    Raises:
        UsageError: a job, the registry or the variables of its login cannot be.
        LauncherError: an image may not be pushed, or the registry refuses it, or the connection broke.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: ECR refuses, or cannot be asked.
        docker.errors.DockerException: no engine answers.
    """
    named = Destination.parse(request.registry) if request.registry else None
    jobs = images.chosen(request.jobs, request.variant)
    with _engine() as client:
        found = [engine.find(client, job, request.variant) for job in jobs]
        judged = [(image, read_source(images.REPOSITORY, image.job, image.variant, image.revision)) for image in found]
        plan = make_plan(judged, allow_dirty=request.allow_dirty)
        opened = open_registry(request, named, jobs, console)
        with closing(Registry(opened.destination.host, opened.credentials)) as registry:
            # All are looked at before any is sent.
            there = [look(registry, opened.destination, item) for item in plan]
            home.make()
            pushed = []
            for item, manifest in zip(plan, there, strict=True):
                if manifest is None:
                    _send(client, opened, item, Progress(console))
                    manifest = look(registry, opened.destination, item)
                else:
                    console.print(f"{item.image.job}: {item.tag} is already there")
                pushed.append(_note(home, opened.destination, item, manifest))
    return pushed


@contextmanager
def _engine() -> "Iterator[DockerClient]":
    with closing(docker_engine.connect(timeout=engine.SECONDS)) as client:
        yield client


def open_registry(request: Request, named: Destination | None, jobs: Sequence[str], console: Console) -> Opened:
    """Log in; on ECR, make the repositories that are missing.

    Args:
        named: the request's registry, if it names one.

    Raises:
        UsageError: the registry is in another region, of another account or not ECR's, or half a login is set.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: ECR refuses, or cannot be asked.
    """
    region = ecr.region_of(named.host) if named else request.region
    if named and region is None:
        if request.region or request.profile:
            raise UsageError(f"--region and --profile are for ECR, which {named.host} is not: leave them out")
        return Opened(named, credentials.find(named.host))
    if named and request.region not in (None, region):
        raise UsageError(f"--registry {named} is in {region}, not in {request.region}: leave --region out")
    client = ecr.connect(region, request.profile)
    with closing(client):
        account = ecr.log_in(client)
        if named:
            ecr.check_account(named.host, account.host)
        destination = named or Destination(account.host)
        for job in jobs:
            if ecr.need_repository(client, destination.name(job)):
                console.print(f"made repository {destination.repository(job)}", soft_wrap=True)
    return Opened(destination, account.credentials)


def look(registry: Registry, destination: Destination, item: Item) -> Manifest | None:
    """What the registry has under an image's tag: this image, or nothing.

    Raises:
        LauncherError: the tag means another image there, or SageMaker would refuse the one that it has.
    """
    job = item.image.job
    manifest = registry.manifest(destination.name(job), item.tag)
    if manifest is None:
        return None
    uri = image_uri(destination, job, item.tag)
    if not manifest.holds(item.image):
        raise LauncherError(
            f"{uri} is another image already, {manifest.digest}, than {item.image.name} here: a tag is never "
            "overwritten, so commit and build anew, or use the one there"
        )
    if reason := refused_format(manifest.media_type):
        words = asked([job], item.image.variant)
        raise LauncherError(f"{uri} {reason}: delete that tag, then `microjobs build {words}` and push again")
    return manifest


def _send(client: "DockerClient", opened: Opened, item: Item, progress: Progress) -> None:
    job = item.image.job
    repository = opened.destination.repository(job)
    with progress.step(f"Pushing {job}") as step:
        show = shower(progress, step)
        upload = engine.push(client, item.image, repository, item.tag, opened.credentials, show)
    progress.note(f"  {item.tag}: layers pushed {upload.pushed}, already there {upload.there}")


def shower(progress: Progress, step: StepDisplay) -> Callable[[engine.Upload], None]:
    """Shows each state of an upload on a terminal, and elsewhere one every `PLAIN_SECONDS`."""
    last = step.started

    def show(upload: engine.Upload) -> None:
        nonlocal last
        if progress.console.is_terminal or time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            progress.status(step, str(upload))

    return show


def _note(home: Home, destination: Destination, item: Item, manifest: Manifest | None) -> Pushed:
    image = item.image
    if manifest is None:
        uri = image_uri(destination, image.job, item.tag)
        raise LauncherError(f"{uri} was pushed, but the registry does not have it: push again")
    uri = f"{destination.repository(image.job)}@{manifest.digest}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pushed = Pushed(uri, item.tag, image.revision, image.id, now)
    record.note(home, destination, image.job, pushed)
    return pushed
