"""Attacks on the web console: requests of other pages, other programs and other users."""

import base64
import json
import re
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local import console_address
from microjobs_orchestrator.local.console import feed
from microjobs_orchestrator.local.console.operations import CHANGE_OPERATIONS
from microjobs_orchestrator.local.console.sessions import REPEAT_SECONDS, Sessions
from microjobs_orchestrator.local.console_address import Token
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from tests.local.clients import LocalServer
from tests.local.security.console_client import (
    API_PATH,
    CONSOLE_PATH,
    SECRET_HEADER,
    Console,
    make_token,
    open_stream,
    read_status,
)
from tests.local.security.stub_runner import run_stub_server
from tests.local.security.wire import Response, Sender
from tests.polling import wait_until

LIST_PATH = f"{API_PATH}sagemaker/ListTrainingJobs"


@pytest.fixture(scope="module")
def stub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server whose runtime starts no hosts. Its home contains what `run_stub_server` writes, such as a log of the job
    `seen`."""
    with run_stub_server(tmp_path_factory.mktemp("console")) as server:
        yield server


@pytest.fixture
def outsider(stub_server: LocalServer) -> Iterator[Console]:
    """A client without a session."""
    sender = Sender(stub_server.address)
    yield Console(sender)
    sender.close()


@pytest.fixture
def console(stub_server: LocalServer, outsider: Console) -> Console:
    """A client with a session."""
    assert outsider.open(make_token(stub_server)).status == 200
    return outsider


def test_session_can_list_jobs(console: Console) -> None:
    answer = console.post(LIST_PATH, {})
    assert (answer.status, "TrainingJobSummaries" in json.loads(answer.body)) == (200, True)


# --- tokens ---


def test_token_works_once(stub_server: LocalServer, outsider: Console) -> None:
    token = make_token(stub_server)
    assert [outsider.open(token).status for _ in range(2)] == [200, 401]


PAGE_KEY = "a" * 36
"""The key of a page. A page that sends its token again proves with the key that it is the same page."""


def test_page_whose_response_was_lost_opens_one_session(stub_server: LocalServer, outsider: Console) -> None:
    token = make_token(stub_server)
    outsider.open(token, key=PAGE_KEY)
    first_session = Console(outsider.sender, outsider.cookie, outsider.secret)
    assert outsider.open(token, key=PAGE_KEY).status == 200
    assert (first_session.post(LIST_PATH, {}).status, outsider.post(LIST_PATH, {}).status) == (401, 200)


@pytest.mark.parametrize("key", ["", "a" * 35, PAGE_KEY + "a", "\ud800", None])
def test_used_token_with_the_key_of_another_page_is_refused(
    stub_server: LocalServer, outsider: Console, key: Any
) -> None:
    token = make_token(stub_server)
    assert outsider.open(token, key=PAGE_KEY).status == 200
    other_console = Console(outsider.sender)
    assert other_console.open(token, key=key).status in (400, 401)
    assert outsider.post(LIST_PATH, {}).status == 200


def test_used_token_is_refused_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(lambda nonce: Token(nonce, int(time.time()) + 100))
    sessions.open("nonce", PAGE_KEY)
    sessions.open("nonce", PAGE_KEY)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + REPEAT_SECONDS)
    with pytest.raises(ServiceError, match="was used"):
        sessions.open("nonce", PAGE_KEY)


def test_expired_token_is_refused(stub_server: LocalServer, outsider: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - console_address.LIFETIME_SECONDS - 1)
    assert outsider.open(make_token(stub_server)).status == 401


def test_token_with_a_later_expiry_is_refused(stub_server: LocalServer, outsider: Console) -> None:
    expiry, nonce, mac = make_token(stub_server).split(".")
    assert outsider.open(f"{int(expiry) + 60}.{nonce}.{mac}").status == 401


def test_token_of_another_home_is_refused(stub_server: LocalServer, outsider: Console, tmp_path: Path) -> None:
    other_home = Home(tmp_path / "other")
    other_home.create()
    assert outsider.open(make_token(stub_server, other_home)).status == 401


@pytest.mark.parametrize("body", [{}, {"token": 5}, {"token": ""}, {"token": "1.2.3"}, [], b"{", b"\xff"])
def test_malformed_token_is_refused(outsider: Console, body: Any) -> None:
    assert outsider.post(f"{API_PATH}sessions", body).status in (400, 401)


# --- sessions ---


@pytest.mark.parametrize("missing_header", ["Cookie", SECRET_HEADER])
def test_cookie_and_secret_are_both_needed(console: Console, missing_header: str) -> None:
    for value in (None, "", "microjobs-console=guessed"):
        answer = console.sender.send_raw("POST", LIST_PATH, console.make_headers({missing_header: value}), b"{}")
        assert (answer.status, b"TrainingJobSummaries" in answer.body) == (401, False)


def test_secret_of_another_session_is_refused(stub_server: LocalServer, console: Console) -> None:
    other_console = Console(console.sender)
    other_console.open(make_token(stub_server))
    assert console.post(LIST_PATH, {}, Cookie=other_console.cookie).status == 401


def test_cookie_is_hidden_from_scripts_and_other_sites(stub_server: LocalServer, outsider: Console) -> None:
    cookie = outsider.open(make_token(stub_server)).headers["set-cookie"]
    assert {"HttpOnly", f"Path={CONSOLE_PATH}", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}


def test_session_does_not_replace_signatures(stub_server: LocalServer, console: Console) -> None:
    """The session works below the console's path only: S3 and the AWS APIs still need signatures."""
    headers = console.make_headers({"Origin": None, "X-Amz-Target": "SageMaker.ListModels"})
    assert console.sender.send_raw("POST", "/", headers, b"{}").status == 403
    assert (
        console.sender.send_raw("GET", f"/{stub_server.address.bucket}", console.make_headers({"Origin": None})).status
        == 403
    )


# --- other pages ---


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "https://HOST"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "evil.localhost", "Origin": "http://evil.localhost"},
        {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
    ],
    ids=str,
)
def test_requests_of_other_pages_are_refused(console: Console, changes: dict[str, str | None]) -> None:
    headers = console.make_headers(
        {name: value and value.replace("HOST", console.sender.host) for name, value in changes.items()}
    )
    answer = console.sender.send_raw("POST", LIST_PATH, headers, b"{}")
    assert (answer.status, b"TrainingJobSummaries" in answer.body) == (403, False)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", None]
)
def test_forms_are_refused(console: Console, content_type: str | None) -> None:
    assert console.post(LIST_PATH, {}, Content_Type=content_type).status == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_operations_need_post(console: Console, method: str) -> None:
    answer = console.sender.send_raw(method, LIST_PATH, console.make_headers({}))
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("target", [CONSOLE_PATH, f"{CONSOLE_PATH}assets/main.js", f"{CONSOLE_PATH}absent", LIST_PATH])
def test_every_response_has_security_headers(outsider: Console, target: str) -> None:
    headers = outsider.sender.send_raw("GET", target, {}).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_other_pages_may_link_to_the_console_but_not_load_its_scripts(outsider: Console) -> None:
    script_headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert outsider.sender.send_raw("GET", f"{CONSOLE_PATH}assets/main.js", script_headers).status == 403
    link_headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert outsider.sender.send_raw("GET", CONSOLE_PATH, link_headers).status == 200


def test_files_are_compressed_and_cached(outsider: Console) -> None:
    page = outsider.sender.send_raw("GET", CONSOLE_PATH, {})
    scripts = re.findall(rb'src="(assets/[0-9a-f]{16}/boot\.js)"', page.body)
    for path, policy in (("", "no-cache"), (scripts[0].decode(), "max-age=31536000, immutable")):
        answer = outsider.sender.send_raw("GET", CONSOLE_PATH + path, {"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["cache-control"] == policy
        second = outsider.sender.send_raw("GET", CONSOLE_PATH + path, {"If-None-Match": answer.headers["etag"]})
        assert (second.status, second.body) == (304, b"")


def test_objects_of_buckets_are_sandboxed(stub_server: LocalServer) -> None:
    """The server sends the objects of buckets from the console's address. The sandbox gives them another origin."""
    stub_server.s3.put_object(
        Bucket=stub_server.address.bucket, Key="page.html", Body=b"<script></script>", ContentType="text/html"
    )
    headers = stub_server.s3.get_object(Bucket=stub_server.address.bucket, Key="page.html")["ResponseMetadata"][
        "HTTPHeaders"
    ]
    assert headers["content-security-policy"] == "sandbox"


# --- contents of requests ---


@pytest.mark.parametrize(
    "path",
    [
        "assets/../../application.py",
        "assets/%2e%2e/%2e%2e/application.py",
        "assets/..%2f..%2fapplication.py",
        "assets//etc/passwd",
        "assets/vendor/lock.json",
        "assets/main.js/",
        "../../application.py",
        "assets/main.js%00",
    ],
)
def test_path_of_an_asset_cannot_reach_other_files(outsider: Console, path: str) -> None:
    assert outsider.sender.send_raw("GET", CONSOLE_PATH + path, {}).status in (403, 404)


def test_huge_bodies_are_refused_before_they_are_read(outsider: Console) -> None:
    for target, status in ((LIST_PATH, 413), (f"{API_PATH}sessions", 413)):
        headers = outsider.make_headers({"Content-Length": str(1 << 40)})
        assert outsider.sender.send_raw("POST", target, headers, b"{}").status == status
        outsider.sender.close()
    chunked = outsider.make_headers({"Transfer-Encoding": "chunked"})
    assert outsider.sender.send_raw("POST", LIST_PATH, chunked, b"2\r\n{}\r\n0\r\n\r\n").status == 411
    outsider.sender.close()


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ("sagemaker/CreateAutoMLJobV2", 403),
        ("sagemaker/DeleteTrainingJob", 403),
        ("sagemaker/Nonsense", 403),
        ("sts/GetSessionToken", 403),
        ("iam/GetRole", 403),
        ("ecr/GetAuthorizationToken", 403),
        ("s3/GetObject", 403),
        ("nonsense/DescribeX", 403),
        ("sagemaker/", 403),
        ("sagemaker/DescribeTrainingJob/x", 403),
        ("nonsense", 403),
        ("sagemaker-runtime/InvokeEndpoints", 403),
        ("sagemaker/DescribeTrainingJob", 400),
    ],
)
def test_only_listed_operations_are_performed(console: Console, operation: str, status: int) -> None:
    assert console.post(API_PATH + operation, {}).status == status


ATTACK_HEADERS: Sequence[tuple[dict[str, str | None], int]] = (
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": None}, 403),
    ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ({"Content-Type": "text/plain"}, 415),
    ({"Cookie": None}, 401),
    ({SECRET_HEADER: None}, 401),
    ({SECRET_HEADER: "guessed"}, 401),
)
"""Changes of a request's headers, and the status of the response."""
CHANGE_OPERATION_PATHS = [f"{service}/{name}" for service, names in CHANGE_OPERATIONS.items() for name in sorted(names)]


@pytest.mark.parametrize("operation", CHANGE_OPERATION_PATHS)
def test_operations_that_change_something_refuse_other_pages(console: Console, operation: str) -> None:
    # a request of the console's page reaches the validation
    assert console.post(API_PATH + operation, {}).status == 400
    for changes, status in ATTACK_HEADERS:
        answer = console.sender.send_raw("POST", API_PATH + operation, console.make_headers(changes), b"{}")
        assert answer.status == status, changes
        assert "access-control-allow-origin" not in answer.headers
    assert console.sender.send_raw("GET", API_PATH + operation, console.make_headers({})).status == 405


def test_invalid_members_are_refused_as_for_all_clients(console: Console) -> None:
    answer = console.post(LIST_PATH, {"Nonsense": 1})
    assert (answer.status, b"Nonsense" in answer.body) == (400, True)


INVOKE_PATH = f"{API_PATH}sagemaker-runtime/InvokeEndpoint"


@pytest.mark.parametrize("body", ["é", "a", "YQ", 5, [], {}])
def test_body_for_a_model_must_be_in_base64(console: Console, body: Any) -> None:
    answer = console.post(INVOKE_PATH, {"EndpointName": "absent", "Body": body})
    assert (answer.status, b"Body" in answer.body) == (400, True)


def test_body_of_an_invocation_needs_a_session_and_may_have_25_mib(console: Console) -> None:
    request = {"EndpointName": "absent", "Body": base64.b64encode(bytes(2 << 20)).decode()}
    assert console.post(INVOKE_PATH, request, Cookie=None).status == 401
    assert b"Endpoint absent" in console.post(INVOKE_PATH, request).body
    for target, size in ((INVOKE_PATH, 35 << 20), (LIST_PATH, 2 << 20)):
        assert console.post(target, {}, Content_Length=str(size)).status == 413
        console.sender.close()
    too_long = base64.b64encode(bytes((25 << 20) + 1)).decode()
    assert console.post(INVOKE_PATH, {"EndpointName": "absent", "Body": too_long}).status == 400


def test_line_ends_in_paths_add_no_headers(outsider: Console) -> None:
    for target in (f"{CONSOLE_PATH}a%0d%0aX-Injected:%201", f"{API_PATH}a%0d%0aX-Injected:%201/b"):
        answer = outsider.sender.send_raw("GET", target, {})
        assert "x-injected" not in answer.headers


# --- downloads ---

LOG_REQUEST = {"group": "/aws/sagemaker/TrainingJobs", "stream": "seen/algo-1"}


def start_download(console: Console, **members: str) -> str:
    """Return the target of a new download of a log."""
    answer = console.post(f"{API_PATH}logs", {**LOG_REQUEST, **members})
    assert answer.status == 200
    return API_PATH + str(json.loads(answer.body)["path"])


def fetch_download(console: Console, target: str, **changes: str) -> Response:
    headers = {"Cookie": console.cookie, "Sec-Fetch-Site": "same-origin", **changes}
    return console.sender.send_raw("GET", target, headers)


def test_download_works_once_and_is_an_attachment(console: Console) -> None:
    target = start_download(console)
    first, second = fetch_download(console, target), fetch_download(console, target)
    assert (first.status, first.body[:14], second.status) == (200, b"line 0\nline 1\n", 404)
    assert first.headers["content-disposition"].startswith("attachment")


def test_download_needs_the_session_that_started_it(stub_server: LocalServer, console: Console) -> None:
    target = start_download(console)
    other_console = Console(console.sender)
    other_console.open(make_token(stub_server))
    assert fetch_download(other_console, target).status == 404
    assert console.sender.send_raw("GET", target, {}).status == 404
    for site in ("cross-site", "same-site"):
        assert fetch_download(console, target, **{"Sec-Fetch-Site": site}).status == 403
    assert fetch_download(console, target).status == 200


@pytest.mark.parametrize(
    "members", [{"stream": "../../../../server.key"}, {"group": "/.."}, {"group": "/", "stream": "server.key"}]
)
def test_download_of_another_file_is_refused(console: Console, members: dict[str, str]) -> None:
    assert console.post(f"{API_PATH}logs", {**LOG_REQUEST, **members}).status == 400


OBJECT_REQUEST = {"bucket": "fuzz", "key": "in/a.csv"}
OBJECT_ROUTES = ("objects", "objects/preview", "objects/archive")


@pytest.mark.parametrize("route", OBJECT_ROUTES)
def test_objects_need_a_session_and_its_secret(console: Console, route: str) -> None:
    request = {**OBJECT_REQUEST, "bytes": 10}
    assert console.post(API_PATH + route, request, Cookie=None).status == 401
    assert console.post(API_PATH + route, request, X_Microjobs_Console=None).status == 401
    assert console.post(API_PATH + route, request, Sec_Fetch_Site="same-site").status == 403
    assert console.sender.send_raw("GET", API_PATH + route, console.make_headers({})).status == 405


@pytest.mark.parametrize("route", ["objects/preview", "objects/archive"])  # `objects` reads the object later
@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"bucket": "absent"}, 404),
        ({"bucket": ".."}, 404),
        ({"key": "../../server.key"}, 404),
        ({"key": "/etc/passwd"}, 404),
        ({"key": ""}, 400),
        ({"key": 5}, 400),
        ({"bucket": None}, 400),
    ],
)
def test_path_of_an_object_cannot_reach_other_files(
    console: Console, route: str, members: dict[str, Any], status: int
) -> None:
    assert console.post(API_PATH + route, {**OBJECT_REQUEST, "bytes": 10, **members}).status == status


@pytest.mark.parametrize("count", [0, -1, 1 << 40, 1.5, True, "10", None])
def test_number_of_bytes_of_a_preview_is_limited(console: Console, count: Any) -> None:
    assert console.post(f"{API_PATH}objects/preview", {**OBJECT_REQUEST, "bytes": count}).status == 400


def test_preview_and_download_are_never_shown_as_a_page(console: Console, stub_server: LocalServer) -> None:
    stub_server.s3.put_object(Bucket="fuzz", Key="page.html", Body=b"<script></script>", ContentType="text/html")
    request = {"bucket": "fuzz", "key": "page.html"}
    preview = console.post(f"{API_PATH}objects/preview", {**request, "bytes": 4})
    path = json.loads(console.post(f"{API_PATH}objects", request).body)["path"]
    download = fetch_download(console, API_PATH + path)
    assert (preview.body, download.body) == (b"<scr", b"<script></script>")
    assert download.headers["content-disposition"].startswith("attachment")
    for answer in (preview, download):
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert fetch_download(console, API_PATH + path).status == 404


def test_list_of_a_huge_archive_is_limited(console: Console, stub_server: LocalServer) -> None:
    member = tarfile.TarInfo("zeros")
    member.size = 300 << 20
    gzip = zlib.compressobj(1, wbits=31)
    parts = [gzip.compress(member.tobuf()), *(gzip.compress(bytes(1 << 20)) for _ in range(300)), gzip.flush()]
    stub_server.s3.put_object(Bucket="fuzz", Key="bomb.tar.gz", Body=b"".join(parts))
    answer = console.post(f"{API_PATH}objects/archive", {"bucket": "fuzz", "key": "bomb.tar.gz"})
    assert (answer.status, json.loads(answer.body)["isComplete"]) == (200, False)


@pytest.mark.parametrize("arn", [None, 5, "", "arn:aws:sagemaker:us-east-1:000000000000:training-job/absent"])
def test_code_of_missing_resources_is_refused(console: Console, arn: Any) -> None:
    assert console.post(f"{API_PATH}code", {"arn": arn}).status == 400


def test_code_needs_a_session(console: Console) -> None:
    assert console.post(f"{API_PATH}code", {"arn": "x"}, Cookie=None).status == 401


# --- streams of changes ---


def test_streams_need_a_session(outsider: Console) -> None:
    with open_stream(outsider) as connection:
        assert read_status(connection) == 401


@pytest.mark.slow
def test_number_of_streams_is_limited_and_closed_pages_make_room(console: Console) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(open_stream(console)) for _ in range(feed.MAX_STREAMS)]
        assert [read_status(stream) for stream in streams] == [200] * feed.MAX_STREAMS
        with open_stream(console) as excess_stream:
            assert read_status(excess_stream) == 503
        assert console.post(LIST_PATH, {}).status == 200
        streams[0].close()
        wait_until(lambda: read_stream_status(console), lambda status: status == 200)


def read_stream_status(console: Console) -> int:
    with open_stream(console) as stream:
        return read_status(stream)


def test_server_with_open_streams_stops_quickly(tmp_path: Path) -> None:
    with run_stub_server(tmp_path) as server:
        sender = Sender(server.address)
        console = Console(sender)
        console.open(make_token(server))
        stream = open_stream(console)
        assert read_status(stream) == 200
        start = time.monotonic()
    assert time.monotonic() - start < 5
    stream.close()
    sender.close()
