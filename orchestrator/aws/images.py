"""The images that `microjobs push` pushed, by their digests: what ran is known, whatever becomes of tags."""

from collections.abc import Callable, Iterable

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import pushed_images
from microjobs_orchestrator.push.destination import Destination, image_uri

Images = dict[str, str]
"""Addresses with digests, by job."""

NO_TAG = "not-pushed-yet"


def pushed(home: Home, destination: Destination) -> Images:
    """What was pushed to a registry from here.

    Raises:
        LauncherError: the record is damaged.
    """
    return {job: image.uri for job, image in pushed_images.load(home).get(str(destination), {}).items()}


def require(images: Images, jobs: Iterable[str], destination: Destination) -> Callable[[str], str]:
    """The address of a job's image, when those of all these jobs are known.

    Raises:
        UsageError: some were not pushed, with the command that does it.
    """
    if missing := [job for job in jobs if job not in images]:
        raise UsageError(
            f"no image of {', '.join(missing)} was pushed to {destination} from here: `microjobs push` does it"
        )
    return images.__getitem__


def planned(images: Images, destination: Destination) -> Callable[[str], str]:
    """The address of a job's image; with a tag that there is not, where no digest is known yet."""
    return lambda job: images.get(job, image_uri(destination, job, NO_TAG))
