"""Tags of images to push, from the revisions of their files, and the reasons not to push an image."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator import sources
from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.images import PLATFORM

OCI_PREFIX = "application/vnd.oci."
"""Prefix of the manifest types that SageMaker refuses: https://github.com/aws/amazon-sagemaker-feedback/issues/180."""
TAG_DIGITS = 12
"""Number of digits of a commit or a digest in a tag."""
MAX_LISTED_FILES = 3
"""Maximum number of changed files that an error lists for each image."""


@dataclass(frozen=True)
class Image:
    """A job's image, as the engine describes it."""

    job: str
    name: str
    """The image's name, such as `microjobs/serve:dev`."""
    id: str
    """The digest of the image's config, or of its manifest if the engine keeps images in containerd."""
    revision: str
    """The revision label: a commit's hash, with `-dirty` if the files had changes; may be empty."""
    platform: str
    media_type: str = ""
    """The manifest's type; empty if the engine keeps no manifest."""
    variant: str = "cpu"
    """The variant label: `cpu` or `cuda`."""


@dataclass(frozen=True)
class ImageSource:
    """What git knows about the files that an image is built from."""

    head: str
    """The hash of the commit at HEAD, all 40 digits."""
    uncommitted_files: tuple[str, ...] = ()
    """Files that differ from HEAD or that HEAD does not have."""
    changed_files: tuple[str, ...] | None = ()
    """Files that differ between the image's revision and HEAD; None if the repository does not have the revision."""


@dataclass(frozen=True)
class TaggedImage:
    image: Image
    tag: str


def read_source(repository: Path, job: str, variant: str, revision: str) -> ImageSource:
    """Read the state of the files of an image that was built from a revision.

    Raises:
        CommandError: the folder is not a git repository, or has no commit.
    """
    try:
        head = sources.read_head(repository)
        uncommitted = sources.list_uncommitted_files(repository, job, variant)
        changed = sources.list_changed_files(
            repository, job, variant, revision.removesuffix("-dirty"), new_revision=head
        )
    except FileNotFoundError:
        raise CommandError("git is not installed: install it, because the tags of images contain revisions") from None
    except subprocess.CalledProcessError as error:
        reason = next(iter(error.stderr.strip().splitlines()), str(error))
        raise CommandError(f"git cannot read the revision of {repository}: {reason}; push from a clone") from error
    return ImageSource(head, tuple(uncommitted), None if changed is None else tuple(changed))


def tag_images(image_sources: Sequence[tuple[Image, ImageSource]], *, allow_dirty: bool = False) -> list[TaggedImage]:
    """Return each image with its tag.

    Only the files that an image is built from decide whether it matches a commit.

    Args:
        image_sources: each image with the state of its files.
        allow_dirty: also accept images that match no commit; their tags contain `-dirty`.

    Raises:
        CommandError: SageMaker cannot run an image; or an image matches no commit and `allow_dirty` is False.
    """
    images = [image for image, _ in image_sources]
    _check_platforms(images)
    _check_formats(images)
    problems = {
        image.job: problem for image, source in image_sources if (problem := find_commit_problem(image, source))
    }
    if problems and not allow_dirty:
        rebuild = f"microjobs build {format_arguments(problems, images[0].variant)}"
        summary = "; ".join(dict.fromkeys(problems.values()))
        raise CommandError(f"{summary}: commit, then `{rebuild}`; or push with --allow-dirty")
    return [TaggedImage(image, format_tag(image, dirty=image.job in problems)) for image in images]


def format_arguments(jobs: Iterable[str], variant: str) -> str:
    """Return jobs and their variant as arguments of `microjobs build` and `microjobs push`."""
    return " ".join([*jobs, *([] if variant == "cpu" else ["--variant", variant])])


def format_tag(image: Image, *, dirty: bool) -> str:
    """Return `COMMIT`, or `COMMIT-cuda` for CUDA, with `-dirty-DIGEST` at the end if the image matches no commit."""
    revision = (image.revision.removesuffix("-dirty") or sources.UNKNOWN_REVISION)[:TAG_DIGITS]
    name = revision if image.variant == "cpu" else f"{revision}-{image.variant}"
    return f"{name}-dirty-{image.id.removeprefix('sha256:')[:TAG_DIGITS]}" if dirty else name


def find_commit_problem(image: Image, source: ImageSource) -> str:
    """Return the reason why an image matches no commit, or differs from HEAD; empty if it matches HEAD."""
    if image.revision in ("", sources.UNKNOWN_REVISION):
        return f"{image.name} has no label with the revision that it was built from"
    if image.revision.endswith("-dirty"):
        files = f" ({_format_files(source.uncommitted_files)})" if source.uncommitted_files else ""
        return f"{image.name} was built from files with uncommitted changes{files}"
    description = f"{image.name} was built from revision {image.revision[:TAG_DIGITS]}"
    if source.changed_files is None:
        return f"{description}, which this clone does not have"
    if source.changed_files:
        files = _format_files(source.changed_files)
        return f"{description}, and HEAD, {source.head[:TAG_DIGITS]}, has different files ({files})"
    if source.uncommitted_files:
        return f"files of {image.name} have uncommitted changes ({_format_files(source.uncommitted_files)})"
    return ""


def find_format_problem(media_type: str) -> str:
    """Return the reason why SageMaker refuses a manifest of this type; empty if SageMaker accepts it.

    Builds with attestations create OCI manifests in engines that keep images in containerd.
    """
    is_refused = media_type.startswith(OCI_PREFIX)
    return f"has a manifest of type {media_type}, which SageMaker refuses" if is_refused else ""


def _format_files(files: Sequence[str]) -> str:
    omitted_count = len(files) - MAX_LISTED_FILES
    return ", ".join(files[:MAX_LISTED_FILES]) + (f" and {omitted_count} more" if omitted_count > 0 else "")


def _check_platforms(images: Iterable[Image]) -> None:
    wrong = [image for image in images if image.platform != PLATFORM]
    if wrong:
        platforms = ", ".join(f"{image.name} is for {image.platform}" for image in wrong)
        rebuild = f"microjobs build {format_arguments([image.job for image in wrong], wrong[0].variant)}"
        raise CommandError(f"{platforms}, but SageMaker runs {PLATFORM}: `{rebuild}` builds for this platform")


def _check_formats(images: Iterable[Image]) -> None:
    for image in images:
        if problem := find_format_problem(image.media_type):
            rebuild = f"microjobs build {format_arguments([image.job], image.variant)}"
            raise CommandError(f"{image.name} {problem}: `{rebuild}` builds an image with a manifest of Docker's type")
