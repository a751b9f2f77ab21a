"""Signatures of the chunks of an upload (`aws-chunked`): each signature covers a chunk and the previous signature."""

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.signatures import VerifiedSignature
from microjobs_orchestrator.local.s3.chunks import ALGORITHM, SIGNED_CHUNKS, SIGNED_CHUNKS_AND_TRAILER, SignatureChain
from tests.local.clients import LocalServer
from tests.local.security.wire import Response, Sender, Signer

CONTENT = b"hello, world" * 10_000
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()

# --- AWS's own examples: sigv4-streaming.html and sigv4-streaming-trailers.html of the S3 API reference ---

EXAMPLE_CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
CHUNKS = (b"a" * 65536, b"a" * 1024, b"")
CHUNK_SIGNATURES = (
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
"""The signature of the request, and the signature of each chunk of CHUNKS."""
TRAILER_CHUNK_SIGNATURES = (
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
"""The same as CHUNK_SIGNATURES, for a request with a trailer."""
TRAILER = {"x-amz-checksum-crc32c": "sOO8/Q=="}
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def make_example_chain(seed: str) -> SignatureChain:
    return SignatureChain(make_request_signature(EXAMPLE_CREDENTIALS, seed, "20130524T000000Z"))


def make_request_signature(credentials: Credentials, seed: str, timestamp: str) -> VerifiedSignature:
    signer, request = Signer(credentials, "s3", "us-east-1"), AWSRequest("PUT", "http://host/")
    request.context["timestamp"] = timestamp
    return VerifiedSignature(
        seed, timestamp, signer.credential_scope(request), lambda text: signer.signature(text, request)
    )


@pytest.mark.parametrize("signatures", [CHUNK_SIGNATURES, TRAILER_CHUNK_SIGNATURES])
def test_chunk_signatures_match_the_examples_of_aws(signatures: tuple[str, ...]) -> None:
    chain = make_example_chain(signatures[0])
    for chunk, signature in zip(CHUNKS, signatures[1:], strict=True):
        chain.check_chunk(sha256(chunk).digest(), signature)


def test_trailer_signature_matches_the_example_of_aws() -> None:
    make_example_chain(TRAILER_CHUNK_SIGNATURES[-1]).check_trailers(TRAILER, TRAILER_SIGNATURE)


def test_chunks_in_another_order_are_refused() -> None:
    with pytest.raises(ServiceError, match="signature of a chunk"):
        make_example_chain(CHUNK_SIGNATURES[0]).check_chunk(sha256(CHUNKS[1]).digest(), CHUNK_SIGNATURES[2])


# --- over the wire ---


@dataclass
class Upload:
    """A PUT request with signed chunks. Tests replace its credentials, its signatures or its chunks."""

    sender: Sender
    payload_type: str = SIGNED_CHUNKS
    credentials: Credentials | None = None
    forge: Callable[[int, str], str] = lambda _, signature: signature
    """Maps the number of a chunk (-1: the trailer) and its valid signature to the signature that is sent."""
    change_chunk: Callable[[bytes], bytes] = lambda chunk: chunk
    """Maps a chunk that was signed to the chunk that is sent."""

    def put(self, key: str = "chunks", chunk_size: int = 50_000) -> Response:
        headers = {"X-Amz-Decoded-Content-Length": str(len(CONTENT))}
        if self.payload_type == SIGNED_CHUNKS_AND_TRAILER:
            headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        target = f"/sagemaker-us-east-1-000000000000/{key}"
        signed_headers = self.sender.sign("s3", "PUT", target, headers, payload=self.payload_type)
        request_signature = make_request_signature(
            self.credentials or self.sender.credentials,
            signed_headers["Authorization"][-64:],
            signed_headers["X-Amz-Date"],
        )
        chunks = [CONTENT[start : start + chunk_size] for start in range(0, len(CONTENT), chunk_size)]
        return self.sender.send_raw("PUT", target, signed_headers, self.make_body([*chunks, b""], request_signature))

    def make_body(self, chunks: list[bytes], request_signature: VerifiedSignature) -> bytes:
        parts, signature = [], request_signature.signature
        for number, chunk in enumerate(chunks):
            signature = self._sign(
                request_signature, "PAYLOAD", signature, sha256(b"").hexdigest(), sha256(chunk).hexdigest()
            )
            head = f"{len(chunk):x};chunk-signature={self.forge(number, signature)}\r\n".encode()
            parts.append(head + self.change_chunk(chunk) + (b"\r\n" if chunk else b""))
        if self.payload_type == SIGNED_CHUNKS_AND_TRAILER:
            trailer = f"x-amz-checksum-crc32:{CRC32}"
            trailer_hash = sha256(f"{trailer}\n".encode()).hexdigest()
            signature = self._sign(request_signature, "TRAILER", signature, trailer_hash)
            parts.append(f"{trailer}\r\nx-amz-trailer-signature:{self.forge(-1, signature)}\r\n".encode())
        return b"".join([*parts, b"\r\n"])

    @staticmethod
    def _sign(request_signature: VerifiedSignature, part: str, previous: str, *hashes: str) -> str:
        return request_signature.sign(
            "\n".join([f"{ALGORITHM}-{part}", request_signature.timestamp, request_signature.scope, previous, *hashes])
        )


with_each_payload_type = pytest.mark.parametrize("payload_type", [SIGNED_CHUNKS, SIGNED_CHUNKS_AND_TRAILER])


@with_each_payload_type
@pytest.mark.parametrize("chunk_size", [1000, 50_000, len(CONTENT)])
def test_signed_chunks_are_stored(
    process_server: LocalServer, sender: Sender, payload_type: str, chunk_size: int
) -> None:
    assert Upload(sender, payload_type).put("whole", chunk_size).status == 200
    assert (process_server.bucket / "whole").read_bytes() == CONTENT


@with_each_payload_type
@pytest.mark.parametrize("number", [0, 1, 3])
def test_forged_chunk_signature_is_refused(
    process_server: LocalServer, sender: Sender, payload_type: str, number: int
) -> None:
    answer = Upload(
        sender, payload_type, forge=lambda chunk_number, signature: "0" * 64 if chunk_number == number else signature
    ).put("forged")
    assert (answer.status, b"<Code>SignatureDoesNotMatch</Code>" in answer.body) == (403, True)
    assert not (process_server.bucket / "forged").exists()


def test_forged_trailer_signature_is_refused(process_server: LocalServer, sender: Sender) -> None:
    answer = Upload(
        sender, SIGNED_CHUNKS_AND_TRAILER, forge=lambda chunk_number, signature: "" if chunk_number == -1 else signature
    ).put("forged")
    assert (answer.status, b"signature of the trailer" in answer.body) == (403, True)
    assert not (process_server.bucket / "forged").exists()


def test_changed_chunk_is_refused(process_server: LocalServer, sender: Sender) -> None:
    assert Upload(sender, change_chunk=bytes.upper).put("changed").status == 403
    assert not (process_server.bucket / "changed").exists()


def test_chunks_signed_with_another_key_are_refused(sender: Sender) -> None:
    assert Upload(sender, credentials=Credentials("key", "other")).put("other").status == 403


def test_chunks_without_signatures_are_refused(sender: Sender) -> None:
    assert Upload(sender, forge=lambda *_: "").put("bare").status == 403


def test_unsigned_trailer_after_signed_chunks_is_refused(sender: Sender) -> None:
    upload = Upload(sender)
    headers = {"X-Amz-Decoded-Content-Length": "0"}
    target = "/sagemaker-us-east-1-000000000000/trailer"
    signed_headers = sender.sign("s3", "PUT", target, headers, payload=SIGNED_CHUNKS)
    request_signature = make_request_signature(
        sender.credentials, signed_headers["Authorization"][-64:], signed_headers["X-Amz-Date"]
    )
    body = upload.make_body([b""], request_signature).removesuffix(b"\r\n") + b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    answer = sender.send_raw("PUT", target, signed_headers, body)
    assert (answer.status, b"IncompleteBody" in answer.body) == (400, True)


@pytest.mark.parametrize("payload", ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "E3B0" * 16, "anything"])
def test_unknown_payload_type_is_refused(sender: Sender, payload: str) -> None:
    answer = sender.send_signed("s3", "PUT", "/sagemaker-us-east-1-000000000000/kind", body=b"x", payload=payload)
    assert (answer.status, b"<Code>InvalidArgument</Code>" in answer.body) == (400, True)
