"""Registries and repositories that images are pushed to."""

import re
from dataclasses import dataclass

from microjobs_orchestrator.failures import UsageError

DEFAULT_PREFIX = "microjobs"

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_COMPONENT_PATTERN = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY_PATTERN = re.compile(rf"{_COMPONENT_PATTERN}(?:/{_COMPONENT_PATTERN})*")
_HOST_PATTERN = re.compile(
    r"(?:localhost|\[[0-9a-fA-F:]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::\d+)?"
)


@dataclass(frozen=True)
class Destination:
    """A registry, and the prefix of the repositories in it."""

    host: str
    """Name and port of the registry, without the default port."""
    prefix: str = DEFAULT_PREFIX

    def __str__(self) -> str:
        return f"{self.host}/{self.prefix}"

    def make_repository_name(self, job: str) -> str:
        """Return the name of a job's repository, without the registry's host."""
        return f"{self.prefix}/{job}"

    def make_repository_uri(self, job: str) -> str:
        """Return the name of a job's repository, with the registry's host."""
        return f"{self}/{job}"

    def make_image_uri(self, job: str, tag: str) -> str:
        """Return the URI of a job's image with a tag. The module `pushed_images` makes URIs with digests."""
        return f"{self.make_repository_uri(job)}:{tag}"

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Parse `HOST[/PREFIX]`.

        Raises:
            UsageError: the text does not have this form.
        """
        host, _, prefix = text.partition("/")
        if not _HOST_PATTERN.fullmatch(host) or (prefix and not _REPOSITORY_PATTERN.fullmatch(prefix)):
            raise UsageError(
                f"registry {text!r} is not HOST[/PREFIX]: use the form registry.example.com/team, in lower case and "
                "without https://"
            )
        return cls(host, prefix or DEFAULT_PREFIX)
