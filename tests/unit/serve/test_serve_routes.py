"""The routes other than /invocations, and the metrics."""

import re
from pathlib import Path

import pytest

from tests.unit.serve.conftest import Server, run_server


def test_ping_gets_status_200_with_empty_body(server: Server) -> None:
    reply = server.request("GET", "/ping")
    assert (reply.status, reply.body) == (200, b"")


def test_execution_parameters_suit_batch_transform(server: Server) -> None:
    expected = {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
    assert server.request("GET", "/execution-parameters").json == expected


def test_execution_parameters_limit_the_total_size_of_concurrent_payloads(root: Path) -> None:
    environment = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "60", "SAGEMAKER_BATCH": "true"}
    with run_server(root, SAGEMAKER_MODEL_SERVER_WORKERS="2", **environment) as server:
        server.wait_until_ready()
        parameters = server.request("GET", "/execution-parameters").json
    assert (parameters["MaxPayloadInMB"], parameters["MaxConcurrentTransforms"]) == (60, 1)


def test_payload_limit_is_enforced(root: Path) -> None:
    with run_server(root, SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server:
        server.wait_until_ready()
        assert server.invoke(b" " * (1024 * 1024 + 1)).status == 413


@pytest.mark.parametrize("path", ["/", "/ping/", "/invocations/x", "/models", "/PING", "/%ff"])
def test_unknown_path_gets_status_404(server: Server, path: str) -> None:
    reply = server.request("GET", path)
    assert (reply.status, "/invocations" in reply.error) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/ping", "GET"), ("GET", "/invocations", "POST"), ("PUT", "/metrics", "GET")],
)
def test_wrong_method_gets_status_405(server: Server, method: str, path: str, allowed: str) -> None:
    reply = server.request(method, path)
    assert (reply.status, allowed in reply.headers["allow"], allowed in reply.error) == (405, True, True)


def read_counter(server: Server, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", server.request("GET", "/metrics").body.decode(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_metrics_count_over_all_workers(server: Server) -> None:
    name = 'serve_requests_total{route="/invocations",status="200"}'
    count, rows = read_counter(server, name), read_counter(server, "serve_predictions_total")
    for _ in range(40):  # each request has a new connection, so that both workers get requests
        assert server.invoke("1,2,3\n4,5,6", "text/csv").status == 200
    # The request is sent several times, because each worker must return the sums over all workers.
    assert {read_counter(server, name) for _ in range(8)} == {count + 40}
    assert read_counter(server, "serve_predictions_total") == rows + 80


def test_metrics_count_errors_and_seconds(server: Server) -> None:
    errors, invocations = 'serve_requests_total{route="/invocations",status="400"}', "serve_invocation_seconds_count"
    count = read_counter(server, errors), read_counter(server, invocations)
    server.invoke("x")
    assert (read_counter(server, errors), read_counter(server, invocations)) == (count[0] + 1, count[1] + 1)


def test_metrics_are_prometheus_text(server: Server) -> None:
    reply = server.request("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b'serve_model_info{features="3",framework="onnx"} 1.0' in reply.body


def test_head_of_ping_gets_status_200(server: Server) -> None:
    reply = server.request("HEAD", "/ping")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize(("path", "method"), [("/ping", "GET"), ("/invocations", "POST"), ("/metrics", "GET")])
def test_options_names_the_methods_of_a_path(server: Server, path: str, method: str) -> None:
    reply = server.request("OPTIONS", path)
    assert (reply.status, method in reply.headers["allow"]) == (200, True)


def test_metrics_count_other_requests(server: Server) -> None:
    name = 'serve_requests_total{route="other",status="404"}'
    count = read_counter(server, name)
    server.request("GET", "/absent")
    assert read_counter(server, name) == count + 1
