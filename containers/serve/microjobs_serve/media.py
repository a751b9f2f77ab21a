"""Which format a body is in and which one the client wants: Content-Type, Accept, Custom-Attributes."""

import codecs
import functools
from collections.abc import Iterator

from .answers import JSON as JSON
from .answers import Problem

CSV = "text/csv"
JSON_LINES = "application/jsonlines"
NPY = "application/x-npy"

FORMATS = {
    JSON: JSON,
    CSV: CSV,
    JSON_LINES: JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/jsonlines+json": JSON_LINES,
    "application/x-ndjson": JSON_LINES,
    NPY: NPY,
}
"""Media type → the format it means; an alias that a client uses is answered with that alias."""

CHARSETS = frozenset(
    {"utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "iso8859-1", "iso8859-15", "cp1252"}
)
"""Encodings of text bodies, by Python's names. Python's other codecs do not encode text, or decode slowly."""

OFFERED = ", ".join((JSON, CSV, JSON_LINES, NPY))


def plain(content_type: str) -> str:
    """`Text/CSV; charset=utf-8` → `text/csv`."""
    return content_type.partition(";")[0].strip().lower()


@functools.lru_cache(maxsize=256)
def charset(content_type: str) -> str:
    """Python's name of the encoding that a Content-Type declares; UTF-8 where it declares none.

    Raises:
        Problem: 415, the encoding is unknown.
    """
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return _codec(value.strip().strip('"'))
    return "utf-8"


def _codec(name: str) -> str:
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        codec = ""
    if codec not in CHARSETS:
        raise Problem(415, f"charset {shorten(name)!r} cannot be read: send UTF-8")
    return codec


@functools.lru_cache(maxsize=256)
def negotiate(content_type: str, accept: str) -> tuple[str, str]:
    """The media types of the request and of its answer, both keys of `FORMATS`.

    An absent Content-Type is JSON; an absent Accept, or one that leaves it open, is the request's own type.

    Raises:
        Problem: 415 for a type that cannot be read, 406 for an Accept that cannot be met.
    """
    given = plain(content_type) or JSON
    if given not in FORMATS:
        raise Problem(415, f"Content-Type {shorten(content_type)!r} cannot be read: send {OFFERED}")
    return given, choose(accept, given)


@functools.lru_cache(maxsize=256)
def choose(accept: str, default: str) -> str:
    """The acceptable media type of highest quality; among equals `default`, then the order of the header.

    Raises:
        Problem: 406, none of ours is acceptable.
    """
    ranges = dict(_ranges(accept)) or {"*/*": 1.0}

    def quality(media: str) -> float:
        # The most specific range that matches decides, whatever the others say.
        for wanted in (media, f"{media.partition('/')[0]}/*", "*/*"):
            if wanted in ranges:
                return ranges[wanted]
        return 0.0

    best = max((default, *(media for media in ranges if media in FORMATS), *FORMATS), key=quality)
    if not quality(best):
        raise Problem(406, f"Accept {shorten(accept)!r} cannot be met: accept {OFFERED}")
    return best


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        qualities = [_quality(text.partition("=")[2]) for text in parameters if text.startswith("q=")]
        if media:
            yield media, qualities[0] if qualities else 1.0


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0


@functools.lru_cache(maxsize=256)
def attribute(header: str, name: str) -> str | None:
    """One attribute of X-Amzn-SageMaker-Custom-Attributes: `signature_name=raw,trace=7` → `raw`."""
    for part in header.replace(";", ",").split(","):
        key, separator, value = part.partition("=")
        if separator and key.strip() == name:
            return value.strip()
    return None


def shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
