"""Conversion between values and their text in forms, query strings, headers and XML."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from botocore.model import Shape
from werkzeug.http import http_date

MAX_DIGITS = 18
INVALID_XML_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Matches characters that XML 1.0 does not allow."""

TimeFormat = Literal["http", "seconds", "milliseconds"]
"""Formats of times: HTTP's format, and ISO 8601 with a precision of seconds or milliseconds."""


def parse_text(shape: Shape, text: str) -> Any:
    """Convert a text to the type of its shape. Times become seconds since 1970; blobs stay in base64.

    Raises:
        ValueError: the text does not have the type of the shape.
    """
    return PARSERS.get(shape.type_name, str)(text)


def parse_integer(text: str) -> int:
    """Parse decimal digits. Python's own parser also accepts `1_0`, digits of other scripts, and thousands of
    digits.

    Raises:
        ValueError: the text is not an integer of at most MAX_DIGITS digits.
    """
    if not re.fullmatch(f"-?[0-9]{{1,{MAX_DIGITS}}}", text):
        raise ValueError(text)
    return int(text)


def _parse_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is not a finite number")
    return value


def _parse_timestamp(text: str) -> float:
    """Parse a date of HTTP or of ISO 8601. A date without a time zone is in UTC."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        date = datetime.fromisoformat(text)
    try:
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(text) from error


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "integer": parse_integer,
    "long": parse_integer,
    "float": parse_float,
    "double": parse_float,
    "boolean": _parse_boolean,
    "timestamp": _parse_timestamp,
}


def format_text(shape: Shape, value: Any, *, time_format: TimeFormat) -> str:
    """Format a value. A time is a datetime, a number of seconds since 1970, or a formatted text."""
    if isinstance(value, bool):
        return str(value).lower()
    if shape.type_name != "timestamp" or isinstance(value, str):
        return str(value)
    date = value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    if time_format == "http":
        return http_date(date)
    return date.isoformat(timespec=time_format).replace("+00:00", "Z")
