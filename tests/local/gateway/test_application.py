"""Requests of real clients to the gateway behind a real HTTP server."""

import base64
import http.client
import json
import logging
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from microjobs_orchestrator.doctor.account import trusts_sagemaker
from tests.local.gateway.conftest import MakeClient


def get_error(call: Any, **arguments: Any) -> tuple[str, str, int]:
    """Return code, message and status of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response: Any = caught.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def send(address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Return status and body of the response to a raw request."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# --- JSON ---


def test_json_response_has_the_types_of_the_model(make_client: MakeClient) -> None:
    answer = make_client("sagemaker").describe_endpoint(EndpointName="here")
    assert answer["EndpointStatus"] == "InService"
    assert answer["CreationTime"] == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    assert "FailureReason" not in answer
    assert len(answer["ResponseMetadata"]["RequestId"]) == 36


def test_error_of_a_handler_reaches_the_client(make_client: MakeClient) -> None:
    error = get_error(make_client("sagemaker").describe_endpoint, EndpointName="absent")
    assert error == ("ValidationException", "Could not find endpoint absent", 400)


def test_bug_gets_status_500_and_is_logged(make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        code, message, status = get_error(make_client("sagemaker").describe_endpoint, EndpointName="bug")
    assert (code, status) == ("InternalFailure", 500)
    assert "Nonsense" not in message
    assert "Nonsense" in caplog.text


def test_invalid_request_does_not_reach_the_handler(make_client: MakeClient) -> None:
    code, message, _ = get_error(make_client("sagemaker").describe_endpoint, EndpointName="not_a_name")
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: Value 'not_a_name' at 'endpointName' failed")


def test_unknown_operation_error_lists_supported_operations(make_client: MakeClient) -> None:
    code, message, _ = get_error(make_client("sagemaker").list_endpoint_configs)
    assert code == "UnknownOperationException"
    assert "'ListEndpointConfigs' of sagemaker is not supported (nearest: ListEndpoints)" in message
    assert "DescribeEndpoint, ListEndpoints" in message


def test_unsupported_member_is_refused(make_client: MakeClient) -> None:
    code, message, _ = get_error(make_client("sagemaker").list_training_jobs, WarmPoolStatusEquals="InUse")
    assert code == "ValidationException"
    assert message == 'Not supported here: WarmPoolStatusEquals "InUse" (warm pools are not supported)'


@pytest.mark.parametrize("service", ["cloudwatch", "kms", "rds"])
def test_unknown_service_error_lists_supported_services(make_client: MakeClient, service: str) -> None:
    calls = {"cloudwatch": "list_metrics", "kms": "list_keys", "rds": "describe_db_instances"}
    code, message, _ = get_error(getattr(make_client(service), calls[service]))
    assert code == "UnknownService"
    assert "supported: ecr, iam, s3, sagemaker, sagemaker-runtime, sts" in message


def test_registry_token_has_the_format_of_docker_login(make_client: MakeClient) -> None:
    data = make_client("ecr").get_authorization_token(registryIds=["111122223333"])["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    assert (user, len(password) > 20) == ("AWS", True)
    assert data["proxyEndpoint"] == "https://111122223333.dkr.ecr.us-east-1.amazonaws.com"
    lifetime = data["expiresAt"] - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < lifetime <= timedelta(hours=12)


# --- query ---


def test_caller_identity_is_the_user_of_the_server(make_client: MakeClient) -> None:
    answer = make_client("sts").get_caller_identity()
    assert answer["Account"] == "000000000000"
    assert answer["Arn"] == "arn:aws:iam::000000000000:user/microjobs"


def test_get_role_returns_a_role_that_was_not_created(make_client: MakeClient) -> None:
    role = make_client("iam").get_role(RoleName="SageMakerRole")["Role"]
    assert trusts_sagemaker(role["AssumeRolePolicyDocument"])
    assert role["Arn"] == "arn:aws:iam::000000000000:role/SageMakerRole"
    assert role["CreateDate"] == datetime(1970, 1, 1, tzinfo=UTC)


def test_error_of_the_query_protocol_names_the_member(make_client: MakeClient) -> None:
    code, message, status = get_error(make_client("iam").get_role, RoleName="not a role")
    assert (code, status) == ("ValidationException", 400)
    assert "at 'roleName'" in message


# --- streaming services ---


@pytest.mark.parametrize("key", ["plain", "a b+c", "%2F/..//x", "größe/漢字", "q?uery&#a=b", "~'()*!"])
def test_streaming_service_receives_the_decoded_key(make_client: MakeClient, key: str) -> None:
    answer = make_client("s3").get_object(Bucket="bucket", Key=key)
    assert bytes.fromhex(answer["ResponseMetadata"]["HTTPHeaders"]["x-path"]).decode() == f"/bucket/{key}"


def test_service_receives_the_whole_body(make_client: MakeClient) -> None:
    body = bytes(range(256)) * 4096 * 8
    response = make_client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=body)
    assert response["Body"].read() == body


def test_error_of_a_streaming_service_reaches_the_client(make_client: MakeClient) -> None:
    error = get_error(make_client("s3").get_object, Bucket="bucket", Key="refused")
    assert error == ("NoSuchKey", "refused is refused", 404)


def test_metadata_names_may_differ_only_in_underscore_and_hyphen(make_client: MakeClient) -> None:
    answer = make_client("s3").put_object(Bucket="bucket", Key="key", Metadata={"a_b": "1", "a-b": "2"})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_connection_is_reused_after_a_refused_upload(make_client: MakeClient) -> None:
    s3 = make_client("s3")
    get_error(s3.put_object, Bucket="bucket", Key="refused", Body=bytes(2**20))
    assert s3.get_object(Bucket="bucket", Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_connection_is_reused_after_a_refused_chunked_upload(address: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request("PUT", "/bucket/key", iter([b"a" * 100_000, b"b"]), encode_chunked=True)
        assert b"not signed" in connection.getresponse().read()
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


# --- authentication ---


def test_wrong_secret_is_refused(make_client: MakeClient) -> None:
    code, message, status = get_error(make_client("sagemaker", aws_secret_access_key="-").list_endpoints)  # noqa: S106
    assert (code, status) == ("InvalidSignatureException", 403)
    assert "microjobs local env" in message


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("sagemaker", "list_endpoints", "UnrecognizedClientException"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
    ],
)
def test_unknown_access_key_is_refused_in_each_protocol(
    make_client: MakeClient, service: str, call: str, code: str
) -> None:
    foreign_client = make_client(service, aws_access_key_id="AKIAFOREIGN")
    assert get_error(getattr(foreign_client, call))[0] == code


def test_invalid_session_token_error_names_the_remedy(make_client: MakeClient) -> None:
    code, message, _ = get_error(make_client("sts", aws_session_token="-").get_caller_identity)  # noqa: S106
    assert code == "InvalidClientTokenId"
    assert "unset AWS_SESSION_TOKEN" in message


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("sagemaker", "list_endpoints", "MissingAuthenticationTokenException"),
        ("iam", "list_roles", "MissingAuthenticationToken"),
        ("s3", "list_buckets", "AccessDenied"),
    ],
)
def test_unsigned_request_is_refused_in_each_protocol(
    make_client: MakeClient, service: str, call: str, code: str
) -> None:
    unsigned_client = make_client(service, config=Config(signature_version=UNSIGNED))
    assert get_error(getattr(unsigned_client, call))[::2] == (code, 403)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_address_is_accepted_without_headers(make_client: MakeClient, version: str) -> None:
    s3 = make_client("s3", config=Config(signature_version=version))
    url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a b/c%2Fd?"})
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert bytes.fromhex(answer.headers["x-path"]).decode() == "/bucket/a b/c%2Fd?"


@pytest.mark.parametrize(
    ("version", "old", "new"),
    [
        ("s3v4", "bucket", "other"),
        ("s3v4", "X-Amz-Expires=3600", "X-Amz-Expires=7200"),
        ("s3v4", "?", "?more=1&"),
        ("s3", "bucket", "other"),
        ("s3", "Expires=", "Expires=1"),
        ("s3", "?", "?acl&"),
    ],
)
def test_changed_presigned_address_is_refused(make_client: MakeClient, version: str, old: str, new: str) -> None:
    s3 = make_client("s3", config=Config(signature_version=version))
    url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"})
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(url.replace(old, new, 1), timeout=10)
    assert caught.value.code == 403
    assert b"SignatureDoesNotMatch" in caught.value.read()
    caught.value.close()


def test_expired_presigned_address_is_refused(make_client: MakeClient) -> None:
    s3 = make_client("s3", config=Config(signature_version="s3"))
    url = urlsplit(s3.generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"}, ExpiresIn=0))
    time.sleep(1.1)  # the expiry has whole seconds
    status, body = send(f"http://{url.netloc}", f"{url.path}?{url.query}")
    assert (status, b"Request has expired" in body) == (403, True)


@pytest.mark.parametrize("host", ["rebound.example", "rebound-localhost", "localhost.example", "[::1", ""])
def test_unknown_host_name_is_refused(address: str, host: str) -> None:
    status, body = send(address, "/health", Host=host)
    assert status == 403
    assert f"host '{host}' is not this server's".encode() in body


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "bucket.localhost:80", "127.0.0.1"])
def test_own_host_names_are_accepted_with_any_port(address: str, host: str) -> None:
    assert send(address, "/health", Host=host)[0] == 200


def test_health_check_of_a_web_page_is_refused(address: str) -> None:
    assert send(address, "/health", Origin="http://page.example")[0] == 403


def test_health_check_succeeds(address: str) -> None:
    status, body = send(address, "/_microjobs/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")


def test_body_above_the_limit_is_refused(make_client: MakeClient) -> None:
    runtime = make_client("sagemaker-runtime")
    code, message, status = get_error(runtime.invoke_endpoint, EndpointName="e", Body=bytes(25 * 2**20 + 1))
    assert (code, status) == ("RequestEntityTooLarge", 413)
    assert "26214400 bytes" in message
