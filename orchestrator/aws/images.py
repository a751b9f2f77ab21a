"""URIs of the images that `microjobs push` pushed. They have digests, because tags can change."""

from collections.abc import Callable, Iterable

from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import pushed_images
from microjobs_orchestrator.push.destination import Destination

ImageUris = dict[str, str]
"""Image URIs with digests, by the name of the image, such as `serve`."""

NOT_PUSHED_TAG = "not-pushed-yet"


def load_pushed_images(home: Home, destination: Destination) -> ImageUris:
    """Return the images whose push to a registry is recorded in this home (by default the folder `.microjobs`)."""
    return {job: image.uri for job, image in pushed_images.load(home).get(str(destination), {}).items()}


def make_pushed_image_finder(uris: ImageUris, jobs: Iterable[str], destination: Destination) -> Callable[[str], str]:
    """Return a function that returns the image URI of a job. Raise UsageError if images of jobs were not pushed."""
    if missing := [job for job in jobs if job not in uris]:
        raise UsageError(
            f"images of {', '.join(missing)} were not pushed to {destination} from this home: run `microjobs push`"
        )
    return uris.__getitem__


def make_image_finder_with_placeholders(uris: ImageUris, destination: Destination) -> Callable[[str], str]:
    """Return a function that returns the image URI of a job. The tag is NOT_PUSHED_TAG if the image was not pushed."""
    return lambda job: uris.get(job, destination.make_image_uri(job, NOT_PUSHED_TAG))
