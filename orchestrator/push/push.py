"""All of a push: look, decide, open the registry, send, write down."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import docker
from rich.console import Console

from orchestrator import images
from orchestrator.failures import LauncherError, UsageError
from orchestrator.local.home import Home
from orchestrator.push import credentials, ecr, engine, record
from orchestrator.push.credentials import Credentials
from orchestrator.push.plan import Destination, Item, image_uri, make_plan
from orchestrator.push.record import Pushed
from orchestrator.push.registry import Manifest, Registry
from orchestrator.push.source import read_source
from orchestrator.workflows.progress import Progress, Step

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
    jobs = _jobs(request.jobs)
    with _engine() as client:
        source = read_source(images.REPOSITORY)
        plan = make_plan([engine.find(client, job) for job in jobs], source, allow_dirty=request.allow_dirty)
        opened = open_registry(request, named, jobs, console)
        there = _look(opened, plan)
        home.make()
        pushed = []
        for item, manifest in zip(plan, there, strict=True):
            digest = _send(client, opened, item, manifest, Progress(console))
            pushed.append(_note(home, opened.destination, item, digest))
    return pushed


def _jobs(asked: Sequence[str]) -> list[str]:
    known = images.jobs()
    if unknown := [job for job in asked if job not in known]:
        raise UsageError(f"no job {', '.join(unknown)}: there are {', '.join(known)}")
    return list(dict.fromkeys(asked)) or known


@contextmanager
def _engine() -> "Iterator[DockerClient]":
    with closing(docker.from_env(timeout=engine.SECONDS)) as client:
        yield client


def open_registry(request: Request, named: Destination | None, jobs: Sequence[str], console: Console) -> Opened:
    """Log in; on ECR, make the repositories that are missing.

    Args:
        named: the request's registry, if it names one.

    Raises:
        UsageError: the registry is in another region or of another account, or half a login is set.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: ECR refuses, or cannot be asked.
    """
    region = ecr.region_of(named.host) if named else request.region
    if named and region is None:
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


def _look(opened: Opened, plan: Sequence[Item]) -> list[Manifest | None]:
    """What the registry has under each tag, before anything is sent.

    Raises:
        LauncherError: a tag means another image there.
    """
    destination = opened.destination
    with closing(Registry(destination.host, opened.credentials)) as registry:
        found = [registry.manifest(destination.name(item.image.job), item.tag) for item in plan]
    for item, manifest in zip(plan, found, strict=True):
        if manifest is not None and not manifest.holds(item.image):
            raise LauncherError(
                f"{image_uri(destination, item.image.job, item.tag)} is another image already, {manifest.digest}, than "
                f"{item.image.name} here: a tag is never overwritten, so commit and build anew, or use the one there"
            )
    return found


def _send(client: "DockerClient", opened: Opened, item: Item, there: Manifest | None, progress: Progress) -> str:
    """The digest of an image that is in the registry afterwards."""
    job = item.image.job
    if there is not None:
        progress.note(f"{job}: {item.tag} is already there")
        return there.digest
    repository = opened.destination.repository(job)
    with progress.step(f"Pushing {job}") as step:
        show = _show(progress, step)
        upload = engine.push(client, item.image, repository, item.tag, opened.credentials, show)
    sent = engine.megabytes(sum(upload.sent.values()))
    progress.note(f"  {item.tag}: layers pushed {upload.pushed} ({sent} MB before compression), there {upload.there}")
    return upload.digest


def _show(progress: Progress, step: Step) -> Callable[[engine.Upload], None]:
    last = step.started

    def show(upload: engine.Upload) -> None:
        nonlocal last
        if progress.console.is_terminal or time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            progress.status(step, str(upload))

    return show


def _note(home: Home, destination: Destination, item: Item, digest: str) -> Pushed:
    image = item.image
    uri = f"{destination.repository(image.job)}@{digest}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pushed = Pushed(uri, item.tag, image.revision, image.id, now)
    record.note(home, destination, image.job, pushed)
    return pushed
