"""AWS's images for scikit-learn, TensorFlow and PyTorch, and the images of this repository that can replace them.

`image_uri_config` in the SageMaker SDK v2 has the names of AWS's repositories.
"""

import re
from collections.abc import Callable, Container
from dataclasses import dataclass

from microjobs_orchestrator.local import own_images
from microjobs_orchestrator.local.identity import ACCOUNT

OPTION = "--framework-images"
URI_PATTERN = re.compile(
    r"""(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.
    (?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|csp\.hci\.ic\.gov|cloud\.adc-e\.uk)
    /(?P<repository>[a-z-]+)(?::(?P<tag>[\w.-]+))?(?:@sha256:[0-9a-f]{64})?""",
    re.VERBOSE,
)
VERSION_PATTERN = re.compile(r"\d+(?:\.\d+)*(?:-\d+(?=-|$))?")
"""Matches the framework's version at the beginning of a tag: for example 2.3.1, or 0.23-1 with a build number."""
PYTHON_PATTERN = re.compile(r"(?:^|-)py(\d)(\d*)(?:-|$)")
"""Matches the version of Python in a tag, such as `py37`."""


@dataclass(frozen=True)
class Framework:
    """A framework, and the job whose image contains it."""

    name: str
    job: str
    packages: tuple[str, ...]
    """The names of the framework's package. Each variant of the image contains one of them."""
    repositories: tuple[str, ...]
    """AWS's repositories with images of the framework."""


FRAMEWORKS = (
    Framework("scikit-learn", "preprocess", ("scikit-learn",), ("sagemaker-scikit-learn",)),
    Framework(
        "TensorFlow",
        "train-tensorflow",
        ("tensorflow-cpu", "tensorflow"),
        (
            *("tensorflow-training", "tensorflow-inference", "tensorflow-inference-graviton"),
            *("sagemaker-tensorflow", "sagemaker-tensorflow-scriptmode", "sagemaker-tensorflow-serving"),
        ),
    ),
    Framework(
        "PyTorch",
        "train-pytorch",
        ("torch",),
        ("pytorch-training", "pytorch-inference", "pytorch-inference-graviton", "sagemaker-pytorch"),
    ),
)


@dataclass(frozen=True)
class FrameworkImage:
    """One of AWS's images, as a request names it."""

    uri: str
    framework: Framework
    tag: str

    def find_substitute(self, list_images: Callable[[], Container[str]]) -> str:
        """Return the name of this repository's image. For GPUs, it is the CUDA variant if the engine has this variant.

        Args:
            list_images: returns the names of the engine's images. It is called only for an image for GPUs.
        """
        cuda = own_images.format_name(self.framework.job, "cuda")
        is_for_gpus = "gpu" in self.tag.split("-")
        return cuda if is_for_gpus and cuda in list_images() else own_images.format_name(self.framework.job)

    def describe_differences(self, substitute: str) -> str:
        """Return a sentence about the versions in the substitute and in the requested image."""
        variant = "cuda" if substitute.endswith("-cuda") else "cpu"
        version = _format_version(self.framework.name, self._find_locked_version(variant))
        match = VERSION_PATTERN.match(self.tag)
        requested_version = match[0] if match else "the requested version"
        python = f"Python {own_images.PYTHON_VERSION}{self._format_requested_python()}"
        return (
            f"{substitute} runs in place of {self.uri} ({OPTION}): {version} instead of {requested_version}, {python}"
        )

    def _find_locked_version(self, variant: str) -> str | None:
        versions = (
            own_images.find_locked_version(self.framework.job, name, variant) for name in self.framework.packages
        )
        return next(filter(None, versions), None)

    def _format_requested_python(self) -> str:
        """Return ` instead of 3.7` for a tag with `py37`, or an empty text if the tag names no version of Python."""
        match = PYTHON_PATTERN.search(self.tag)
        return "" if match is None else f" instead of {'.'.join(filter(None, match.groups()))}"


def _format_version(name: str, version: str | None) -> str:
    return name if version is None else f"{name} {version}"


def parse(uri: str) -> FrameworkImage | None:
    """Return the framework image that a URI names; None for other images, and for the local server's registry."""
    match = URI_PATTERN.fullmatch(uri)
    if match is None or match["account"] == ACCOUNT:
        return None
    frameworks = (framework for framework in FRAMEWORKS if match["repository"] in framework.repositories)
    framework = next(frameworks, None)
    return None if framework is None else FrameworkImage(uri, framework, match["tag"] or "")


def format_hint(uri: str) -> str:
    """Return the beginning of a remedy, `start the server with … in its place, or `, for a framework image of AWS.

    The caller appends the other remedies. For other images, the result is empty.
    """
    image = parse(uri)
    return "" if image is None else f"start the server with {OPTION} to run {image.framework.job} in its place, or "
