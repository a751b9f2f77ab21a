"""Media types of request and response bodies."""

JSON = "application/json"
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
"""Format of each media type. A response has the media type that the client accepts, even if that is an alias."""

SUPPORTED_FORMATS = ", ".join((JSON, CSV, JSON_LINES, NPY))
"""The formats, for error messages."""


def parse_media_type(content_type: str) -> str:
    """Return the media type without its parameters: `Text/CSV; charset=utf-8` → `text/csv`."""
    return content_type.partition(";")[0].strip().lower()
