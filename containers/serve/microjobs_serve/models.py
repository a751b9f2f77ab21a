"""What a model is: it answers invocations."""

from typing import NamedTuple, Protocol

from .listener import Headers
from .responses import HttpResponse


class Invocation(NamedTuple):
    """A request's body and the headers that describe it; a header that is absent is an empty string."""

    body: bytes
    content_type: str
    accept: str
    attributes: str
    headers: Headers | None = None


class Model(Protocol):
    """A model that has been loaded."""

    @property
    def is_fast(self) -> bool:
        """True if it answers a small request in less time than another thread would need to take the request over."""

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """Answer one invocation.

        Raises:
            HttpError: the invocation is invalid, or the prediction failed.
        """
