"""What is pushed where, under which tag, or why not: decided before anything has an effect."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.push.source import Source
from microjobs_orchestrator.sources import UNKNOWN

PREFIX = "microjobs"
PLATFORM = "linux/amd64"
"""What SageMaker's instances run."""
OCI = "application/vnd.oci."
"""Manifests that SageMaker refuses: https://github.com/aws/amazon-sagemaker-feedback/issues/180."""
DIGITS = 12
SHOWN = 3
"""Changed files that an error names, for each image."""

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(r"(?:localhost|\[[0-9a-fA-F:]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::\d+)?")


@dataclass(frozen=True)
class Destination:
    """A registry, and the part of it that our repositories are in."""

    host: str
    """With its port, if that is not the usual one."""
    prefix: str = PREFIX

    def __str__(self) -> str:
        return f"{self.host}/{self.prefix}"

    def name(self, job: str) -> str:
        """A job's repository, as the registry itself calls it."""
        return f"{self.prefix}/{job}"

    def repository(self, job: str) -> str:
        """A job's repository, as an engine calls it."""
        return f"{self}/{job}"

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Read `HOST[/PREFIX]`.

        Raises:
            UsageError: it is something else.
        """
        host, _, prefix = text.partition("/")
        if not _HOST.fullmatch(host) or (prefix and not _REPOSITORY.fullmatch(prefix)):
            raise UsageError(
                f"registry {text!r} is no HOST[/PREFIX]: write such as registry.example.com/team, in small letters "
                "and without https://"
            )
        return cls(host, prefix or PREFIX)


def image_uri(destination: Destination, job: str, tag: str) -> str:
    """An image by its tag; `record` knows it by its digest."""
    return f"{destination.repository(job)}:{tag}"


def asked(jobs: Iterable[str], variant: str) -> str:
    """Jobs and their variant, as `microjobs build` and `microjobs push` take them."""
    return " ".join([*jobs, *([] if variant == "cpu" else ["--variant", variant])])


@dataclass(frozen=True)
class Image:
    """What the engine says of a job's image."""

    job: str
    name: str
    """Such as `microjobs/serve:dev`."""
    id: str
    """The digest of its config, or of its manifest where the engine keeps images in containerd."""
    revision: str
    """The label: a commit's hash, perhaps with `-dirty`; may be empty."""
    platform: str
    media_type: str = ""
    """Of its manifest, where the engine keeps one."""
    variant: str = "cpu"
    """The label: `cpu` or `cuda`."""


@dataclass(frozen=True)
class Item:
    """An image, and the tag that it gets."""

    image: Image
    tag: str


def make_plan(found: Iterable[tuple[Image, Source]], *, allow_dirty: bool = False) -> list[Item]:
    """Return a tag for each image. It is judged by the files that it is made of, whatever else was changed.

    Args:
        allow_dirty: take also what no commit stands for, under a tag that says so.

    Raises:
        LauncherError: SageMaker would not run an image; or no commit stands for it, and that is not allowed.
    """
    sources = dict(found)
    images = list(sources)
    _refuse_platforms(images)
    _refuse_formats(images)
    reasons = {image.job: reason for image in images if (reason := unclean(image, sources[image]))}
    if not allow_dirty and reasons:
        jobs = asked(reasons, images[0].variant)
        told = "; ".join(dict.fromkeys(reasons.values()))
        raise LauncherError(f"{told}: commit, then `microjobs build {jobs}`; or push with --allow-dirty")
    return [Item(image, tag(image, dirty=image.job in reasons)) for image in images]


def tag(image: Image, *, dirty: bool) -> str:
    """`<commit>`, of a CUDA image `<commit>-cuda`; for what no commit stands for, `-dirty-<content>` behind it."""
    revision = (image.revision.removesuffix("-dirty") or UNKNOWN)[:DIGITS]
    name = revision if image.variant == "cpu" else f"{revision}-{image.variant}"
    return f"{name}-dirty-{image.id.removeprefix('sha256:')[:DIGITS]}" if dirty else name


def unclean(image: Image, source: Source) -> str:
    """Return why no commit stands for an image, or HEAD has other files than it; empty if all is well."""
    if image.revision in ("", UNKNOWN):
        return f"{image.name} does not say which revision it was built from"
    if image.revision.endswith("-dirty"):
        shown = f" ({_shown(source.changes)})" if source.changes else ""
        return f"{image.name} was built from files with changes that were not committed{shown}"
    built = f"{image.name} was built from revision {image.revision[:DIGITS]}"
    if source.since is None:
        return f"{built}, which this clone does not have"
    if source.since:
        return f"{built}, and HEAD, {source.head[:DIGITS]}, has other files ({_shown(source.since)})"
    if source.changes:
        return f"files of {image.name} have changes that are not committed ({_shown(source.changes)})"
    return ""


def refused_format(media_type: str) -> str:
    """Why SageMaker would not read a manifest; empty if it would.

    Builds with attestations make OCI's types in engines that keep images in containerd.
    """
    return f"has a manifest of type {media_type}, which SageMaker refuses" if media_type.startswith(OCI) else ""


def _shown(files: Sequence[str]) -> str:
    more = len(files) - SHOWN
    return ", ".join(files[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse_platforms(images: Iterable[Image]) -> None:
    wrong = [image for image in images if image.platform != PLATFORM]
    if wrong:
        told = ", ".join(f"{image.name} is for {image.platform}" for image in wrong)
        jobs = asked([image.job for image in wrong], wrong[0].variant)
        raise LauncherError(f"{told}: SageMaker runs {PLATFORM}, which `microjobs build {jobs}` makes")


def _refuse_formats(images: Iterable[Image]) -> None:
    for image in images:
        if reason := refused_format(image.media_type):
            words = asked([image.job], image.variant)
            raise LauncherError(f"{image.name} {reason}: `microjobs build {words}` makes one of Docker's own type")
