"""Tests of damaged or missing data, and of malformed responses of containers."""

import socket
from collections.abc import Callable

import pytest

from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.resources.models.client import NoResponseError
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from tests.local.jobs.conftest import MakeClient, ServerParts
from tests.local.jobs.fakes import ImageBehaviour, ReceivedRequest, Reply

MALFORMED_ARCHIVES = {
    "not an archive": b"this is not an archive",
    "empty": b"",
    "truncated": bytes.fromhex("1f8b0800000000000003edc1010d000000c2a0f74f6d0e37a0"),
}


@pytest.mark.parametrize("defect", MALFORMED_ARCHIVES)
def test_malformed_archive_fails_the_endpoint(parts: ServerParts, defect: str) -> None:
    parts.make_model(ModelDataUrl=parts.put("models/model.tar.gz", MALFORMED_ARCHIVES[defect]))
    endpoint = parts.deploy()
    assert endpoint["EndpointStatus"] == "Failed"
    assert 'extract model data archive from URL "s3://bucket/models/model.tar.gz"' in endpoint["FailureReason"]
    assert parts.runtime.started_hosts == []


def test_deleted_model_data_fails_the_endpoint(parts: ServerParts, put_archive: Callable[..., str]) -> None:
    parts.make_model(ModelDataUrl=put_archive(x="1"))
    parts.context.store.delete("bucket", "models/model.tar.gz")
    endpoint = parts.deploy()
    assert endpoint["EndpointStatus"] == "Failed"
    assert "Could not find model data at s3://bucket/models/model.tar.gz" in endpoint["FailureReason"]


def test_error_names_an_object_that_is_deleted_while_a_job_starts(parts: ServerParts) -> None:
    objects = inputs.select_objects(parts.context.store, parts.put("train/a", b"x").removesuffix("a"), "input")
    parts.context.store.delete("bucket", "train/a")
    with pytest.raises(CannotRunError, match="s3://bucket/train/a was deleted while the job started"):
        inputs.link_objects(objects, parts.home.work / "linked")


def test_object_deleted_during_a_transform_does_not_affect_other_outputs(
    parts: ServerParts, model: ImageBehaviour
) -> None:
    for name in "abcdef":  # only a few objects are read in advance: the last object is read after the first answer
        parts.put(f"in/{name}", name.encode())

    def invoke(request: ReceivedRequest) -> Reply:
        parts.context.store.delete("bucket", "in/f")
        return Reply(request.body)

    model.invoke = invoke
    assert parts.transform()["FailureReason"].startswith("ClientError: s3://bucket/in/f: ")
    assert parts.read_outputs() == {f"{name}.out": name.encode() for name in "abcde"}


MALFORMED_RESPONSES = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "no status": b"HTTP/1.1 ABC OK\r\n\r\n",
    "chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
}


@pytest.mark.parametrize("defect", MALFORMED_RESPONSES)
def test_malformed_response_raises(make_client: MakeClient, defect: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(MALFORMED_RESPONSES[defect])
        connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(NoResponseError):
        make_client(answer).request("GET", "/", timeout=2)
