"""Uploads with forms (presigned POST), and addresses that are presigned with version 2."""

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

Changes = Callable[[dict[str, Any]], None]


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
def test_form_uploads_a_file(guarded: LocalServer, version: str) -> None:
    fields = {"Content-Type": "text/x", "x-amz-meta-who": "me", "success_action_status": "201", "acl": "private"}
    conditions = [
        {"Content-Type": "text/x"},
        ["starts-with", "$x-amz-meta-who", "m"],
        {"success_action_status": "201"},
        ["eq", "$acl", "private"],
        ["content-length-range", 3, 300_000],
    ]
    form = s3(guarded, version).generate_presigned_post(
        guarded.address.bucket, "forms/${filename}", Fields=fields, Conditions=conditions
    )
    content = b"0123456789" * 30_000
    answer = send(form, content, "folder/a b.txt")
    assert (answer.status_code, b"<Key>forms/a b.txt</Key>" in answer.content) == (201, True), answer.text
    found = s3(guarded).get_object(Bucket=guarded.address.bucket, Key="forms/a b.txt")
    assert (found["ContentType"], found["Metadata"], found["Body"].read()) == ("text/x", {"who": "me"}, content)
    assert answer.headers["ETag"] == found["ETag"]


def test_form_of_a_session_uploads(guarded: LocalServer) -> None:
    issued = guarded.client("sts").get_session_token()["Credentials"]
    session = {
        "aws_access_key_id": issued["AccessKeyId"],
        "aws_secret_access_key": issued["SecretAccessKey"],
        "aws_session_token": issued["SessionToken"],
    }
    for version in ("s3", "s3v4"):
        form = s3(guarded, version, **session).generate_presigned_post(guarded.address.bucket, "session")
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


def _set(name: str, value: str) -> Changes:
    def change(form: dict[str, Any]) -> None:
        form["fields"][name] = value

    return change


def _to_other_bucket(form: dict[str, Any]) -> None:
    form["url"] = form["url"] + "-other"


def _without(name: str) -> Changes:
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
def test_form_against_its_policy_is_refused(guarded: LocalServer, version: str, change: Changes, code: str) -> None:
    form = s3(guarded, version).generate_presigned_post(guarded.address.bucket, "refused")
    change(form)
    answer = send(form)
    assert f"<Code>{code}</Code>" in answer.text, answer.text
    assert not (guarded.bucket / "refused").exists()
    assert not (guarded.bucket / "elsewhere").exists()


@pytest.mark.parametrize(("size", "code"), [(2, "EntityTooSmall"), (101, "EntityTooLarge"), (100, None)])
def test_policy_limits_the_size(guarded: LocalServer, size: int, code: str | None) -> None:
    conditions = [["content-length-range", 3, 100]]
    form = s3(guarded).generate_presigned_post(guarded.address.bucket, f"sized-{size}", Conditions=conditions)
    answer = send(form, b"x" * size)
    assert (f"<Code>{code}</Code>" in answer.text) == (code is not None)
    assert (guarded.bucket / f"sized-{size}").exists() == (code is None)


def test_expired_policy_is_refused(guarded: LocalServer) -> None:
    form = s3(guarded).generate_presigned_post(guarded.address.bucket, "expired", ExpiresIn=-1)
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
def test_form_without_a_signature_is_refused(guarded: LocalServer, fields: dict[str, str], code: str) -> None:
    answer = send({"url": f"{guarded.address.url}/{guarded.address.bucket}", "fields": fields})
    assert f"<Code>{code}</Code>" in answer.text, answer.text


def test_incomplete_file_is_not_stored(guarded: LocalServer) -> None:
    form = s3(guarded).generate_presigned_post(guarded.address.bucket, "cut")
    request = requests.Request("POST", form["url"], data=form["fields"], files={"file": b"x" * 1000}).prepare()
    assert isinstance(request.body, bytes)
    request.body = request.body[:-200]
    request.headers["Content-Length"] = str(len(request.body))
    with requests.Session() as session:
        answer = session.send(request, timeout=30)
    assert "<Code>MalformedPOSTRequest</Code>" in answer.text
    assert not (guarded.bucket / "cut").exists()


def test_redirect_names_the_uploaded_object(guarded: LocalServer) -> None:
    target = "https://example.com/done?a=b"
    form = s3(guarded).generate_presigned_post(
        guarded.address.bucket,
        "redirected",
        Fields={"success_action_redirect": target},
        Conditions=[{"success_action_redirect": target}],
    )
    answer = send(form)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{target}&bucket={guarded.address.bucket}&key=redirected&etag=%22")


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
    guarded: LocalServer, version: str, operation: str, members: dict[str, Any], method: str
) -> None:
    guarded.put({"presigned/a b": "x"})
    bucket = {} if operation == "list_buckets" else {"Bucket": guarded.address.bucket}
    client = s3(guarded, version)
    url = client.generate_presigned_url(operation, Params={**bucket, **members})
    answer = requests.request(method, url, timeout=30)
    assert answer.status_code == 200, answer.text
    if version == "s3":  # the client refuses to sign an address of the other version that has expired
        expired = client.generate_presigned_url(operation, Params={**bucket, **members}, ExpiresIn=-60)
        assert requests.request(method, expired, timeout=30).status_code == 403
    other = "HEAD" if method == "GET" else "GET"
    assert requests.request(other, url, timeout=30).status_code == 403


def test_presigned_address_may_have_the_bucket_in_the_host(guarded: LocalServer) -> None:
    guarded.put({"hosted": "x"})
    config = Config(signature_version="s3", s3={"addressing_style": "virtual"})
    port = guarded.address.url.rpartition(":")[2]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://localhost:{port}",
        region_name="us-east-1",
        aws_access_key_id=guarded.address.access_key_id,
        aws_secret_access_key=guarded.address.secret_access_key,
        config=config,
    )
    for operation, members in (("list_objects_v2", {}), ("get_object", {"Key": "hosted"})):
        url = client.generate_presigned_url(operation, Params={"Bucket": guarded.address.bucket, **members})
        host = f"{guarded.address.bucket}.localhost"
        path = url.partition(f"{host}:{port}")[2]
        answer = requests.get(f"{guarded.address.url}{path}", headers={"Host": f"{host}:{port}"}, timeout=30)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_upload_cannot_be_changed(guarded: LocalServer, version: str) -> None:
    members = {"Bucket": guarded.address.bucket, "Key": "put", "ContentType": "text/z", "Metadata": {"a": "b"}}
    url = s3(guarded, version).generate_presigned_url("put_object", Params=members)
    headers = {"Content-Type": "text/z", "x-amz-meta-a": "b"}
    assert requests.put(url, b"x", headers=headers, timeout=30).status_code == 200
    for changed in ({"Content-Type": "text/other"}, {"x-amz-meta-a": "c"}, {"x-amz-acl": "private"}):
        assert requests.put(url, b"x", headers=headers | changed, timeout=30).status_code == 403


@pytest.mark.parametrize("operation", ["get_object", "put_object", "list_objects", "create_bucket"])
@pytest.mark.parametrize(
    "added", ["attributes", "renameObject", "%72enameObject", "encryption", "retention", "publicAccessBlock", "session"]
)
def test_presigned_address_cannot_change_its_operation(guarded: LocalServer, operation: str, added: str) -> None:
    """Version 2 does not sign the parameters that select newer operations."""
    key = {"Key": "a"} if operation.endswith("_object") else {}
    url = s3(guarded, "s3").generate_presigned_url(operation, Params={"Bucket": guarded.address.bucket, **key})
    method = "GET" if operation.startswith(("get", "list")) else "PUT"
    answer = requests.request(method, f"{url}&{added}", timeout=30)
    assert (answer.status_code, "<Code>SignatureDoesNotMatch</Code>" in answer.text) == (403, True), answer.text


def test_policy_expires_with_its_session(guarded: LocalServer) -> None:
    issued = sessions.issue(guarded.home.credentials(), sessions.HOME_CALLER, -1)
    client = s3(
        guarded,
        aws_access_key_id=issued["AccessKeyId"],
        aws_secret_access_key=issued["SecretAccessKey"],
        aws_session_token=issued["SessionToken"],
    )
    answer = send(client.generate_presigned_post(guarded.address.bucket, "late", ExpiresIn=86_400))
    assert "<Code>ExpiredToken</Code>" in answer.text
