"""Tests of form uploads (presigned POST) and of presigned addresses, with signature versions 2 and 4."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import pytest
import requests
from botocore.auth import HmacV1PostAuth
from botocore.config import Config
from botocore.credentials import Credentials

from microjobs_orchestrator.local import temporary_credentials
from tests.local.clients import LocalServer

FormChange = Callable[[dict[str, Any]], None]


def make_s3_client(server: LocalServer, version: str = "s3v4", **credentials: str) -> Any:
    server_credentials = {
        "aws_access_key_id": server.address.access_key_id,
        "aws_secret_access_key": server.address.secret_access_key,
    }
    config = Config(signature_version=version, s3={"addressing_style": "path"})
    region, url = server.address.region, server.address.url
    return boto3.client("s3", endpoint_url=url, region_name=region, config=config, **(server_credentials | credentials))  # type: ignore[call-overload]


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
    form = make_s3_client(process_server, version).generate_presigned_post(
        process_server.address.bucket, "forms/${filename}", Fields=fields, Conditions=conditions
    )
    content = b"0123456789" * 30_000
    response = send(form, content, "folder/a b.txt")
    assert (response.status_code, b"<Key>forms/a b.txt</Key>" in response.content) == (201, True), response.text
    stored_object = make_s3_client(process_server).get_object(Bucket=process_server.address.bucket, Key="forms/a b.txt")
    assert (stored_object["ContentType"], stored_object["Metadata"], stored_object["Body"].read()) == (
        "text/x",
        {"who": "me"},
        content,
    )
    assert response.headers["ETag"] == stored_object["ETag"]


def test_form_signed_with_temporary_credentials_uploads(process_server: LocalServer) -> None:
    session_credentials = process_server.client("sts").get_session_token()["Credentials"]
    credentials = {
        "aws_access_key_id": session_credentials["AccessKeyId"],
        "aws_secret_access_key": session_credentials["SecretAccessKey"],
        "aws_session_token": session_credentials["SessionToken"],
    }
    for version in ("s3", "s3v4"):
        form = make_s3_client(process_server, version, **credentials).generate_presigned_post(
            process_server.address.bucket, "temporary"
        )
        assert send(form).status_code == 204
        form["fields"]["x-amz-security-token"] = session_credentials["SessionToken"][:-8] + "AAAAAAA="
        assert send(form).status_code == 403


def _replace_signature(form: dict[str, Any]) -> None:
    name = "signature" if "signature" in form["fields"] else "x-amz-signature"
    form["fields"][name] = "0" * 64


def _replace_policy(form: dict[str, Any]) -> None:
    """Replace the policy with a policy that allows more, and keep the signature."""
    policy = {"expiration": "2100-01-01T00:00:00Z", "conditions": [["starts-with", "$key", ""]]}
    form["fields"]["policy"] = base64.b64encode(json.dumps(policy).encode()).decode()


def _set_field(name: str, value: str) -> FormChange:
    def change(form: dict[str, Any]) -> None:
        form["fields"][name] = value

    return change


def _change_bucket(form: dict[str, Any]) -> None:
    form["url"] = form["url"] + "-other"


def _remove_field(name: str) -> FormChange:
    return lambda form: form["fields"].pop(name, None)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_replace_signature, "SignatureDoesNotMatch"),
        (_replace_policy, "SignatureDoesNotMatch"),
        (_set_field("key", "elsewhere"), "AccessDenied"),
        (_set_field("acl", "private"), "AccessDenied"),
        (_set_field("x-amz-meta-extra", "1"), "AccessDenied"),
        (_change_bucket, "AccessDenied"),
        (_remove_field("key"), "InvalidArgument"),
        (_remove_field("policy"), "SignatureDoesNotMatch"),
    ],
)
def test_changed_form_is_refused(process_server: LocalServer, version: str, change: FormChange, code: str) -> None:
    form = make_s3_client(process_server, version).generate_presigned_post(process_server.address.bucket, "refused")
    change(form)
    response = send(form)
    assert f"<Code>{code}</Code>" in response.text, response.text
    assert not (process_server.bucket / "refused").exists()
    assert not (process_server.bucket / "elsewhere").exists()


def test_signed_form_without_a_policy_is_refused(process_server: LocalServer) -> None:
    """The signature of the empty text is correct, because a missing policy is signed as an empty one."""
    form = make_s3_client(process_server, "s3").generate_presigned_post(process_server.address.bucket, "no-policy")
    address = process_server.address
    signer = HmacV1PostAuth(Credentials(address.access_key_id, address.secret_access_key))
    form["fields"]["signature"] = signer.sign_string("")
    del form["fields"]["policy"]
    response = send(form)
    assert (response.status_code, "<Code>InvalidArgument</Code>" in response.text) == (400, True), response.text
    assert "must contain a field named 'policy'" in response.text
    assert not (process_server.bucket / "no-policy").exists()


def make_redirect_form(server: LocalServer, key: str, target: str) -> dict[str, Any]:
    """Return a signed upload form that redirects the browser to an address."""
    form: dict[str, Any] = make_s3_client(server).generate_presigned_post(
        server.address.bucket,
        key,
        Fields={"success_action_redirect": target},
        Conditions=[{"success_action_redirect": target}],
    )
    return form


def test_malformed_redirect_is_ignored(process_server: LocalServer) -> None:
    target = "http://[::1"
    form = make_redirect_form(process_server, "malformed-redirect", target)
    assert send(form).status_code == 204


@pytest.mark.parametrize(("size", "code"), [(2, "EntityTooSmall"), (101, "EntityTooLarge"), (100, None)])
def test_policy_limits_the_size(process_server: LocalServer, size: int, code: str | None) -> None:
    conditions = [["content-length-range", 3, 100]]
    form = make_s3_client(process_server).generate_presigned_post(
        process_server.address.bucket, f"sized-{size}", Conditions=conditions
    )
    response = send(form, b"x" * size)
    assert (f"<Code>{code}</Code>" in response.text) == (code is not None)
    assert (process_server.bucket / f"sized-{size}").exists() == (code is None)


def test_expired_policy_is_refused(process_server: LocalServer) -> None:
    form = make_s3_client(process_server).generate_presigned_post(
        process_server.address.bucket, "expired", ExpiresIn=-1
    )
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
    response = send({"url": f"{process_server.address.url}/{process_server.address.bucket}", "fields": fields})
    assert f"<Code>{code}</Code>" in response.text, response.text


def test_incomplete_file_is_not_stored(process_server: LocalServer) -> None:
    form = make_s3_client(process_server).generate_presigned_post(process_server.address.bucket, "cut")
    request = requests.Request("POST", form["url"], data=form["fields"], files={"file": b"x" * 1000}).prepare()
    assert isinstance(request.body, bytes)
    request.body = request.body[:-200]
    request.headers["Content-Length"] = str(len(request.body))
    with requests.Session() as session:
        response = session.send(request, timeout=30)
    assert "<Code>MalformedPOSTRequest</Code>" in response.text
    assert not (process_server.bucket / "cut").exists()


def test_redirect_names_the_uploaded_object(process_server: LocalServer) -> None:
    target = "https://example.com/done?a=b"
    form = make_redirect_form(process_server, "redirected", target)
    response = send(form)
    assert response.status_code == 303
    assert response.headers["Location"].startswith(
        f"{target}&bucket={process_server.address.bucket}&key=redirected&etag=%22"
    )


# --- presigned addresses ---


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
    client = make_s3_client(process_server, version)
    url = client.generate_presigned_url(operation, Params={**bucket, **members})
    response = requests.request(method, url, timeout=30)
    assert response.status_code == 200, response.text
    if version == "s3":  # with version 4, the client refuses to sign an expired address
        expired_url = client.generate_presigned_url(operation, Params={**bucket, **members}, ExpiresIn=-60)
        assert requests.request(method, expired_url, timeout=30).status_code == 403
    other_method = "HEAD" if method == "GET" else "GET"
    assert requests.request(other_method, url, timeout=30).status_code == 403


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
        response = requests.get(f"{process_server.address.url}{path}", headers={"Host": f"{host}:{port}"}, timeout=30)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_upload_cannot_be_changed(process_server: LocalServer, version: str) -> None:
    members = {"Bucket": process_server.address.bucket, "Key": "put", "ContentType": "text/z", "Metadata": {"a": "b"}}
    url = make_s3_client(process_server, version).generate_presigned_url("put_object", Params=members)
    headers = {"Content-Type": "text/z", "x-amz-meta-a": "b"}
    assert requests.put(url, b"x", headers=headers, timeout=30).status_code == 200
    for changed_header in ({"Content-Type": "text/other"}, {"x-amz-meta-a": "c"}, {"x-amz-acl": "private"}):
        assert requests.put(url, b"x", headers=headers | changed_header, timeout=30).status_code == 403


@pytest.mark.parametrize("operation", ["get_object", "put_object", "list_objects", "create_bucket"])
@pytest.mark.parametrize(
    "parameter",
    ["attributes", "renameObject", "%72enameObject", "encryption", "retention", "publicAccessBlock", "session"],
)
def test_presigned_address_cannot_change_its_operation(
    process_server: LocalServer, operation: str, parameter: str
) -> None:
    """Signature version 2 does not cover the parameters that select newer operations, so the server refuses them."""
    key = {"Key": "a"} if operation.endswith("_object") else {}
    url = make_s3_client(process_server, "s3").generate_presigned_url(
        operation, Params={"Bucket": process_server.address.bucket, **key}
    )
    method = "GET" if operation.startswith(("get", "list")) else "PUT"
    response = requests.request(method, f"{url}&{parameter}", timeout=30)
    assert (response.status_code, "<Code>SignatureDoesNotMatch</Code>" in response.text) == (403, True), response.text


def test_policy_signed_with_expired_credentials_is_refused(process_server: LocalServer) -> None:
    session_credentials = temporary_credentials.issue(
        process_server.home.credentials(), temporary_credentials.HOME_CALLER, seconds=-1
    )
    client = make_s3_client(
        process_server,
        aws_access_key_id=session_credentials["AccessKeyId"],
        aws_secret_access_key=session_credentials["SecretAccessKey"],
        aws_session_token=session_credentials["SessionToken"],
    )
    response = send(client.generate_presigned_post(process_server.address.bucket, "late", ExpiresIn=86_400))
    assert "<Code>ExpiredToken</Code>" in response.text
