"""Content negotiation: the media types of a request and of its response, from the headers."""

import pytest

from microjobs.hosting.content_negotiation import choose_media_type, negotiate, parse_attribute
from microjobs.hosting.responses import HttpError

JSON, CSV, LINES, NPY = "application/json", "text/csv", "application/jsonlines", "application/x-npy"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", CSV),
        ("*/*", CSV),
        (" , ", CSV),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/*", JSON),
        ("text/*, application/x-npy", CSV),
        ("application/json;q=0.5, application/x-npy;q=0.9", NPY),
        ("application/json;q=0.5, */*;q=0.1", JSON),
        ("text/csv;q=0.1, */*", JSON),
        ("*/*, text/csv;q=0", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", CSV),
        ("application/x-npy, application/jsonlines", NPY),
        ("application/x-ndjson", "application/x-ndjson"),
        ("image/png, application/json;q=nonsense", JSON),
    ],
)
def test_best_media_type_of_accept_is_chosen(accept: str, media_type: str) -> None:
    assert choose_media_type(accept, CSV) == media_type


@pytest.mark.parametrize("accept", ["image/png", "text/html, image/*", "application/json;q=0", "*/*;q=0"])
def test_accept_without_a_supported_type_gets_status_406(accept: str) -> None:
    with pytest.raises(HttpError) as caught:
        choose_media_type(accept, CSV)
    assert caught.value.status == 406


def test_parameters_of_content_type_are_ignored() -> None:
    assert negotiate("Text/CSV; charset=utf-8", "") == (CSV, CSV)


def test_error_shortens_long_headers() -> None:
    with pytest.raises(HttpError, match="…") as caught:
        negotiate("x" * 5000, "")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("signature_name=raw", "raw"),
        ("trace=7; signature_name = raw", "raw"),
        ("a,signature_name=raw,b=c", "raw"),
        ("", None),
        ("signature_name", None),
        ("my_signature_name=raw", None),
    ],
)
def test_custom_attribute_is_parsed(header: str, value: str | None) -> None:
    assert parse_attribute(header, "signature_name") == value
