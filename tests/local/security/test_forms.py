"""Tests of form uploads (presigned POST) and of presigned addresses, with signature versions 2 and 4."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config

from microjobs_orchestrator.local import sessions
from tests.local.clients import LocalServer

FormChange = Callable[[dict[str, Any]], None]


def s3(local: LocalServer, version: str = "s3v4", **session: str) -> Any:
    base_arguments = {
        "aws_access_key_id": local.address.access_key_id,
        "aws_secret_access_key": local.address.secret_access_key,
    }
    config = Config(signature_version=version, s3={"addressing_style": "path"})
    region, url = local.address.region, local.address.url
    return boto3.client("s3", endpoint_url=url, region_name=region, config=config, **(base_arguments | session))  # type: ignore[call-overload]


def send(form: Mapping[str, Any], content: bytes = b"content", name: str = "name.txt") -> requests.Response:
    return requests.post(
        form["url"], data=form["fields"], files={"file": (name, content)}, timeout=30, allow_redirects=False
    )


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_form_uploads_a_file(process_server: LocalServer, version: str) -> None:
    fields = {"Content-Type": "text/x", "x-amz-meta-who": "me", "success_action_status": "201", "acl": "private"}
    conditions = [
        {"Content-Type": "text/x"},
        ["starts-with", "$x-amz-meta-who", "m"],
        {"success_action_status": "201"},
        ["eq", "$acl", "private"],
        ["content-length-range", 3, 300_000],
    ]
    form = s3(process_server, version).generate_presigned_post(
        process_server.address.bucket, "forms/${filename}", Fields=fields, Conditions=conditions
    )
    content = b"0123456789" * 30_000
    answer = send(form, content, "folder/a b.txt")
    assert (answer.status_code, b"<Key>forms/a b.txt</Key>" in answer.content) == (201, True), answer.text
    found = s3(process_server).get_object(Bucket=process_server.address.bucket, Key="forms/a b.txt")
    assert (found["ContentType"], found["Metadata"], found["Body"].read()) == ("text/x", {"who": "me"}, content)
    assert answer.headers["ETag"] == found["ETag"]


def test_form_of_a_session_uploads(process_server: LocalServer) -> None:
    issued = process_server.client("sts").get_session_token()["Credentials"]
    session = {
        "aws_access_key_id": issued["AccessKeyId"],
        "aws_secret_access_key": issued["SecretAccessKey"],
        "aws_session_token": issued["SessionToken"],
    }
    for version in ("s3", "s3v4"):
        form = s3(process_server, version, **session).generate_presigned_post(process_server.address.bucket, "session")
        assert send(form).status_code == 204
        form["fields"]["x-amz-security-token"] = issued["SessionToken"][:-8] + "AAAAAAA="
        assert send(form).status_code == 403


def _other_signature(form: dict[str, Any]) -> None:
    name = "signature" if "signature" in form["fields"] else "x-amz-signature"
    form["fields"][name] = "0" * 64


def _other_policy(form: dict[str, Any]) -> None:
    """Replace the policy by one that allows more, and keep the signature."""
    allowed = {"expiration": "2100-01-01T00:00:00Z", "conditions": [["starts-with", "$key", ""]]}
    form["fields"]["policy"] = base64.b64encode(json.dumps(allowed).encode()).decode()


def _set(name: str, value: str) -> FormChange:
    def change(form: dict[str, Any]) -> None:
        form["fields"][name] = value

    return change


def _to_other_bucket(form: dict[str, Any]) -> None:
    form["url"] = form["url"] + "-other"


def _without(name: str) -> FormChange:
    return lambda form: form["fields"].pop(name, None)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_other_signature, "SignatureDoesNotMatch"),
        (_other_policy, "SignatureDoesNotMatch"),
        (_set("key", "elsewhere"), "AccessDenied"),
        (_set("acl", "private"), "AccessDenied"),
        (_set("x-amz-meta-extra", "1"), "AccessDenied"),
        (_to_other_bucket, "AccessDenied"),
        (_without("key"), "InvalidArgument"),
        (_without("policy"), "SignatureDoesNotMatch"),
    ],
)
def test_form_against_its_policy_is_refused(
    process_server: LocalServer, version: str, change: FormChange, code: str
) -> None:
    form = s3(process_server, version).generate_presigned_post(process_server.address.bucket, "refused")
    change(form)
    answer = send(form)
    assert f"<Code>{code}</Code>" in answer.text, answer.text
    assert not (process_server.bucket / "refused").exists()
    assert not (process_server.bucket / "elsewhere").exists()


@pytest.mark.parametrize(("size", "code"), [(2, "EntityTooSmall"), (101, "EntityTooLarge"), (100, None)])
def test_policy_limits_the_size(process_server: LocalServer, size: int, code: str | None) -> None:
    conditions = [["content-length-range", 3, 100]]
    form = s3(process_server).generate_presigned_post(
        process_server.address.bucket, f"sized-{size}", Conditions=conditions
    )
    answer = send(form, b"x" * size)
    assert (f"<Code>{code}</Code>" in answer.text) == (code is not None)
    assert (process_server.bucket / f"sized-{size}").exists() == (code is None)


def test_expired_policy_is_refused(process_server: LocalServer) -> None:
    form = s3(process_server).generate_presigned_post(process_server.address.bucket, "expired", ExpiresIn=-1)
    assert "Policy expired" in send(form).text


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"key": "x"}, "AccessDenied"),
        ({}, "AccessDenied"),
        ({"key": "x" * 30_000}, "AccessDenied"),
        ({f"field-{number}": "x" for number in range(200)}, "AccessDenied"),
    ],
)
def test_form_without_a_signature_is_refused(process_server: LocalServer, fields: dict[str, str], code: str) -> None:
    answer = send({"url": f"{process_server.address.url}/{process_server.address.bucket}", "fields": fields})
    assert f"<Code>{code}</Code>" in answer.text, answer.text


def test_incomplete_file_is_not_stored(process_server: LocalServer) -> None:
    form = s3(process_server).generate_presigned_post(process_server.address.bucket, "cut")
    request = requests.Request("POST", form["url"], data=form["fields"], files={"file": b"x" * 1000}).prepare()
    assert isinstance(request.body, bytes)
    request.body = request.body[:-200]
    request.headers["Content-Length"] = str(len(request.body))
    with requests.Session() as session:
        answer = session.send(request, timeout=30)
    assert "<Code>MalformedPOSTRequest</Code>" in answer.text
    assert not (process_server.bucket / "cut").exists()


def test_redirect_names_the_uploaded_object(process_server: LocalServer) -> None:
    target = "https://example.com/done?a=b"
    form = s3(process_server).generate_presigned_post(
        process_server.address.bucket,
        "redirected",
        Fields={"success_action_redirect": target},
        Conditions=[{"success_action_redirect": target}],
    )
    answer = send(form)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(
        f"{target}&bucket={process_server.address.bucket}&key=redirected&etag=%22"
    )


# --- addresses that are presigned ---


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize(
    ("operation", "members", "method"),
    [
        ("list_objects_v2", {"Prefix": "presigned/", "Delimiter": "/"}, "GET"),
        ("list_objects", {}, "GET"),
        ("list_buckets", {}, "GET"),
        ("head_bucket", {}, "HEAD"),
        ("head_object", {"Key": "presigned/a b"}, "HEAD"),
        ("get_object", {"Key": "presigned/a b", "ResponseContentType": "text/y"}, "GET"),
        ("get_object_tagging", {"Key": "presigned/a b"}, "GET"),
        ("get_bucket_acl", {}, "GET"),
    ],
)
def test_presigned_address_is_accepted_until_it_expires(
    process_server: LocalServer, version: str, operation: str, members: dict[str, Any], method: str
) -> None:
    process_server.put({"presigned/a b": "x"})
    bucket = {} if operation == "list_buckets" else {"Bucket": process_server.address.bucket}
    client = s3(process_server, version)
    url = client.generate_presigned_url(operation, Params={**bucket, **members})
    answer = requests.request(method, url, timeout=30)
    assert answer.status_code == 200, answer.text
    if version == "s3":  # with version 4, the client refuses to sign an expired address
        expired = client.generate_presigned_url(operation, Params={**bucket, **members}, ExpiresIn=-60)
        assert requests.request(method, expired, timeout=30).status_code == 403
    other = "HEAD" if method == "GET" else "GET"
    assert requests.request(other, url, timeout=30).status_code == 403


def test_presigned_address_may_have_the_bucket_in_the_host(process_server: LocalServer) -> None:
    process_server.put({"hosted": "x"})
    config = Config(signature_version="s3", s3={"addressing_style": "virtual"})
    port = process_server.address.url.rpartition(":")[2]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://localhost:{port}",
        region_name="us-east-1",
        aws_access_key_id=process_server.address.access_key_id,
        aws_secret_access_key=process_server.address.secret_access_key,
        config=config,
    )
    for operation, members in (("list_objects_v2", {}), ("get_object", {"Key": "hosted"})):
        url = client.generate_presigned_url(operation, Params={"Bucket": process_server.address.bucket, **members})
        host = f"{process_server.address.bucket}.localhost"
        path = url.partition(f"{host}:{port}")[2]
        answer = requests.get(f"{process_server.address.url}{path}", headers={"Host": f"{host}:{port}"}, timeout=30)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_upload_cannot_be_changed(process_server: LocalServer, version: str) -> None:
    members = {"Bucket": process_server.address.bucket, "Key": "put", "ContentType": "text/z", "Metadata": {"a": "b"}}
    url = s3(process_server, version).generate_presigned_url("put_object", Params=members)
    headers = {"Content-Type": "text/z", "x-amz-meta-a": "b"}
    assert requests.put(url, b"x", headers=headers, timeout=30).status_code == 200
    for changed in ({"Content-Type": "text/other"}, {"x-amz-meta-a": "c"}, {"x-amz-acl": "private"}):
        assert requests.put(url, b"x", headers=headers | changed, timeout=30).status_code == 403


@pytest.mark.parametrize("operation", ["get_object", "put_object", "list_objects", "create_bucket"])
@pytest.mark.parametrize(
    "added", ["attributes", "renameObject", "%72enameObject", "encryption", "retention", "publicAccessBlock", "session"]
)
def test_presigned_address_cannot_change_its_operation(process_server: LocalServer, operation: str, added: str) -> None:
    """Signature version 2 does not cover the parameters that select newer operations."""
    key = {"Key": "a"} if operation.endswith("_object") else {}
    url = s3(process_server, "s3").generate_presigned_url(
        operation, Params={"Bucket": process_server.address.bucket, **key}
    )
    method = "GET" if operation.startswith(("get", "list")) else "PUT"
    answer = requests.request(method, f"{url}&{added}", timeout=30)
    assert (answer.status_code, "<Code>SignatureDoesNotMatch</Code>" in answer.text) == (403, True), answer.text


def test_policy_expires_with_its_session(process_server: LocalServer) -> None:
    issued = sessions.issue(process_server.home.credentials(), sessions.HOME_CALLER, -1)
    client = s3(
        process_server,
        aws_access_key_id=issued["AccessKeyId"],
        aws_secret_access_key=issued["SecretAccessKey"],
        aws_session_token=issued["SessionToken"],
    )
    answer = send(client.generate_presigned_post(process_server.address.bucket, "late", ExpiresIn=86_400))
    assert "<Code>ExpiredToken</Code>" in answer.text
