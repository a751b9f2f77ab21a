"""Tests with raw requests: chunks, trailers, and requests that boto3 does not send."""

import base64
import hashlib
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

from microjobs_orchestrator.local.home import Home
from tests.local.s3.conftest import BUCKET

CONTENT = b"hello, world" * 10_000
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
PATH = f"/{BUCKET}/a"


class Response(NamedTuple):
    status: int
    body: bytes


@pytest.fixture
def connection(endpoint_url: str) -> Iterator[HTTPConnection]:
    with closing(HTTPConnection(endpoint_url.removeprefix("http://"), timeout=10)) as connection:
        yield connection


def send(connection: HTTPConnection, method: str, path: str, body: object = None, **headers: str) -> Response:
    sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    is_chunked = "Transfer-Encoding" in sent_headers
    connection.request(method, path, body, sent_headers, encode_chunked=is_chunked)  # type: ignore[arg-type]
    response = connection.getresponse()
    return Response(response.status, response.read())


def encode_chunks(*chunks: bytes, trailer: str = "") -> bytes:
    """Return a body in the format `aws-chunked`, without signatures."""
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return encoded + f"0\r\n{trailer}\r\n".encode()


def make_streaming_headers(payload_type: str, **headers: str) -> dict[str, str]:
    payload_headers = {
        "x_amz_content_sha256": f"STREAMING-{payload_type}",
        "x_amz_decoded_content_length": str(len(CONTENT)),
    }
    return {"Content_Encoding": "aws-chunked", **payload_headers, **headers}


TRAILER_HEADER = {"x_amz_trailer": "x-amz-checksum-crc32"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (encode_chunks(CONTENT), make_streaming_headers("UNSIGNED-PAYLOAD-TRAILER")),
        (encode_chunks(CONTENT[:99], CONTENT[99:]), make_streaming_headers("UNSIGNED-PAYLOAD-TRAILER")),
        (
            encode_chunks(CONTENT, trailer=f"x-amz-checksum-crc32:{CRC32}\r\n"),
            make_streaming_headers("UNSIGNED-PAYLOAD-TRAILER", **TRAILER_HEADER),
        ),
    ],
)
@pytest.mark.parametrize("transfer", [{}, {"Transfer_Encoding": "chunked"}])
def test_aws_chunked_body_is_decoded(
    connection: HTTPConnection, home: Home, body: bytes, headers: Mapping[str, str], transfer: Mapping[str, str]
) -> None:
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000)) if transfer else body
    assert send(connection, "PUT", PATH, pieces, **headers, **transfer).status == 200
    assert (home.buckets / PATH[1:]).read_bytes() == CONTENT
    assert send(connection, "GET", PATH).body == CONTENT  # the connection can still be used


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (encode_chunks(CONTENT[1:]), {}, "IncompleteBody"),
        (b"zz\r\n" + CONTENT, {}, "IncompleteBody"),
        (b"10\r\nshort", {"x_amz_decoded_content_length": "5"}, "IncompleteBody"),
        (b"1\r\nlonger\r\n0\r\n\r\n", {"x_amz_decoded_content_length": "1"}, "IncompleteBody"),
        (encode_chunks(CONTENT), TRAILER_HEADER, "MalformedTrailerError"),
        (encode_chunks(CONTENT, trailer="x-amz-checksum-crc32:AAAAAA==\r\n"), TRAILER_HEADER, "BadDigest"),
        (encode_chunks(CONTENT), {"x_amz_decoded_content_length": "x"}, "MissingContentLength"),
        (encode_chunks(CONTENT, trailer=f"a:{'b' * 20_000}\r\n"), {}, "IncompleteBody"),
    ],
)
def test_malformed_chunks_raise(
    connection: HTTPConnection, home: Home, body: bytes, headers: dict[str, str], code: str
) -> None:
    response = send(connection, "PUT", PATH, body, **(make_streaming_headers("UNSIGNED-PAYLOAD-TRAILER") | headers))
    assert f"<Code>{code}</Code>".encode() in response.body
    assert not list((home.buckets / BUCKET).iterdir())
    assert send(connection, "HEAD", PATH) == (404, b"")


def test_signed_chunks_without_request_signature_raise(connection: HTTPConnection) -> None:
    response = send(
        connection, "PUT", PATH, encode_chunks(CONTENT), **make_streaming_headers("AWS4-HMAC-SHA256-PAYLOAD")
    )
    assert (response.status, b"which needs a request with a signature of version 4" in response.body) == (403, True)


def test_checksum_mode_ignores_case(connection: HTTPConnection, home: Home) -> None:
    (home.buckets / PATH[1:]).write_bytes(b"content")
    assert send(connection, "GET", PATH, x_amz_checksum_mode="enabled") == (200, b"content")


def test_connection_can_be_used_after_an_error(connection: HTTPConnection) -> None:
    pieces = (CONTENT for _ in range(20))
    assert send(connection, "PUT", "/no-such-bucket/a", pieces, Transfer_Encoding="chunked").status == 404
    assert send(connection, "GET", f"/{BUCKET}").status == 200


@pytest.mark.parametrize(("hashed_content", "status"), [(CONTENT, 200), (b"other", 400)])
def test_body_must_match_its_signed_hash(connection: HTTPConnection, hashed_content: bytes, status: int) -> None:
    response = send(connection, "PUT", PATH, CONTENT, x_amz_content_sha256=hashlib.sha256(hashed_content).hexdigest())
    assert (response.status, b"XAmzContentSHA256Mismatch" in response.body) == (status, status == 400)


def test_malformed_http_chunk_raises(connection: HTTPConnection, home: Home) -> None:
    connection.putrequest("PUT", PATH)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders(b"no size\r\n")
    assert b"IncompleteBody" in connection.getresponse().read()
    assert not list((home.buckets / BUCKET).iterdir())


def test_incomplete_body_leaves_no_file(connection: HTTPConnection, home: Home) -> None:
    connection.putrequest("PUT", PATH)
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"half")
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_WR)
    assert b"IncompleteBody" in connection.getresponse().read()
    assert not list((home.buckets / BUCKET).iterdir()) + list((home.objects / "incoming").iterdir())


def test_client_may_wait_for_100_continue(connection: HTTPConnection, home: Home) -> None:
    connection.putrequest("PUT", PATH)
    connection.putheader("Content-Length", "4")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock is not None
    assert connection.sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"body")
    assert connection.getresponse().read() == b""
    assert (home.buckets / PATH[1:]).read_bytes() == b"body"


def test_missing_content_length_raises(connection: HTTPConnection) -> None:
    connection.putrequest("PUT", PATH)
    connection.endheaders()
    assert connection.getresponse().status == 411


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", f"/{BUCKET}?inventory", 501, b"; supported: AbortMultipartUpload"),
        ("PUT", f"/{BUCKET}?lifecycle", 501, b"PutBucketLifecycleConfiguration"),
        (
            "GET",
            f"{PATH}?versionId=1",
            501,
            b'Not supported here: VersionId "1" (honoured: null; versions are not kept)',
        ),
        ("PUT", f"{PATH}?partNumber=1", 501, b"PutObject has no query parameter &#39;partNumber&#39;"),
        (
            "GET",
            f"{PATH}?attributes",
            400,
            b"GetObjectAttributes requires these headers or parameters: x-amz-object-attributes.",
        ),
        ("GET", f"{PATH}?partNumber=one", 400, b"PartNumber is &#39;one&#39;; its type must be integer"),
        ("GET", f"/{BUCKET}?encoding-type=base64", 400, b"Member must satisfy enum value set: [url]"),
        ("POST", f"/{BUCKET}", 405, b"The method POST is not allowed"),
        ("PATCH", PATH, 405, b"The method PATCH is not allowed"),
        ("GET", f"/{BUCKET}/%ff", 400, b"InvalidURI"),
        ("GET", f"/{BUCKET}?prefix=%ff", 400, b"InvalidURI"),
        ("GET", "/../../etc/passwd", 404, b"NoSuchBucket"),
        ("GET", f"/{BUCKET}/%2e%2e/%2e%2e/state.db", 404, b"NoSuchKey"),
    ],
)
def test_unsupported_or_invalid_request_gets_its_status(
    connection: HTTPConnection, method: str, path: str, status: int, text: bytes
) -> None:
    response = send(connection, method, path)
    assert response.status == status
    assert text.replace(b"&#39;", b"'") in response.body


@pytest.mark.parametrize("header", ["x-amz-website-redirect-location", "x-amz-object-lock-mode", "x-amz-grant-read"])
def test_unsupported_header_raises(connection: HTTPConnection, header: str) -> None:
    value = "GOVERNANCE" if "lock" in header else "x"
    assert send(connection, "PUT", PATH, b"", **{header: value}).status == 501


def test_public_acl_raises(connection: HTTPConnection) -> None:
    assert send(connection, "PUT", PATH, b"", x_amz_acl="private").status == 200
    assert b'Not supported here: ACL "public-read"' in send(connection, "PUT", PATH, b"", x_amz_acl="public-read").body


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no xml",
        b"<Other/>",
        b"<Delete><Object/></Delete>",
        b"<Delete><Unknown/></Delete>",
        b'<!DOCTYPE d [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>',
    ],
)
def test_malformed_document_raises(connection: HTTPConnection, document: bytes) -> None:
    assert b"<Code>MalformedXML</Code>" in send(connection, "POST", f"/{BUCKET}?delete", document).body


def test_too_long_document_raises(connection: HTTPConnection) -> None:
    response = send(connection, "POST", f"/{BUCKET}?delete", b" " * (17 << 20))
    assert b"MaxMessageLengthExceeded" in response.body


def test_key_with_characters_invalid_in_xml_is_listed_encoded(connection: HTTPConnection, home: Home) -> None:
    (home.buckets / BUCKET / "a\rb").touch()
    assert b"<Key>a&#13;b</Key>" in send(connection, "GET", f"/{BUCKET}").body
    (home.buckets / BUCKET / "a\x01").touch()
    assert b"encoding-type=url" in send(connection, "GET", f"/{BUCKET}").body
    assert b"<Key>a%01</Key>" in send(connection, "GET", f"/{BUCKET}?encoding-type=url").body
