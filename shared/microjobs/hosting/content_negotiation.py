"""Reads Content-Type, Accept and Custom-Attributes, and chooses the media type of the response."""

import codecs
import contextlib
import functools
from collections.abc import Iterator

from .media_types import FORMATS, JSON, SUPPORTED_FORMATS, parse_media_type
from .responses import HttpError, quote

CHARSETS = frozenset(
    {"utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "iso8859-1", "iso8859-15", "cp1252"}
)
"""Encodings of text bodies, by Python's names. Python's other codecs do not encode text, or decode slowly."""


@functools.lru_cache(maxsize=256)
def parse_charset(content_type: str) -> str:
    """Return Python's name of the encoding that a Content-Type declares; the default is UTF-8.

    Raises:
        HttpError: 415, the encoding is not supported.
    """
    parameters = (parameter.partition("=") for parameter in content_type.split(";")[1:])
    values = (value.strip().strip('"') for name, _, value in parameters if name.strip().lower() == "charset")
    charset = next(values, "utf-8")
    with contextlib.suppress(LookupError, ValueError):
        if (name := codecs.lookup(charset).name) in CHARSETS:
            return name
    raise HttpError(415, f"charset {quote(charset)} is not supported: send UTF-8")


@functools.lru_cache(maxsize=256)
def negotiate(content_type: str, accept: str) -> tuple[str, str]:
    """Return the media types of the request and of the response, both keys of `FORMATS`.

    The default of Content-Type is JSON. The default of Accept is the request's own media type.

    Raises:
        HttpError: 415, the Content-Type is not supported; 406, no supported media type matches Accept.
    """
    request_type = parse_media_type(content_type) or JSON
    if request_type not in FORMATS:
        raise HttpError(415, f"Content-Type {quote(content_type)} is not supported: send {SUPPORTED_FORMATS}")
    return request_type, choose_media_type(accept, request_type)


@functools.lru_cache(maxsize=256)
def choose_media_type(accept: str, default: str) -> str:
    """Return the media type with the highest quality. If several have it, prefer `default`, then the first in `accept`.

    Raises:
        HttpError: 406, no supported media type matches Accept.
    """
    ranges = dict(_parse_ranges(accept)) or {"*/*": 1.0}
    candidates = (default, *(name for name in ranges if name in FORMATS), *FORMATS)
    media_type = max(candidates, key=lambda name: _find_quality(name, ranges))
    if not _find_quality(media_type, ranges):
        raise HttpError(406, f"Accept {quote(accept)} is not supported: accept {SUPPORTED_FORMATS}")
    return media_type


def _find_quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return the quality of the most specific range that matches."""
    for name in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _parse_ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        qualities = [_parse_quality(text.partition("=")[2]) for text in parameters if text.startswith("q=")]
        if name:
            yield name, qualities[0] if qualities else 1.0


def _parse_quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0


@functools.lru_cache(maxsize=256)
def parse_attribute(header: str, name: str) -> str | None:
    """Return one attribute of X-Amzn-SageMaker-Custom-Attributes: `signature_name=raw,trace=7` → `raw`."""
    for part in header.replace(";", ",").split(","):
        key, separator, value = part.partition("=")
        if separator and key.strip() == name:
            return value.strip()
    return None
