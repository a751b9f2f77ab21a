"""Hosts of a processing job, as real processes with different loopback addresses."""

import contextlib
import importlib.util
import json
import logging
import pickle
import secrets
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from microjobs import peers
from microjobs.contract import Layout, ResourceConfig, write_job_certificate
from microjobs.dask_cluster import is_not_about_a_stopped_listener, mute_log_while_closing
from microjobs.errors import UserError
from microjobs.hosts import run_on_hosts
from microjobs.network import DASK_PORT, HEARTBEAT_PORT
from microjobs_orchestrator.local.certificates import make_certificate
from tests.unit.cluster_host import PROGRAM
from tests.unit.hosts import End, Host, Hosts, make_hosts

if TYPE_CHECKING:
    from distributed import Worker

MAX_JOB_SECONDS = 30
"""Maximum number of seconds until all hosts have ended. If a failure did not end the calls on the other hosts, these
calls would take 60 s. On a busy machine, three hosts need 10 s to import Dask."""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    for job_hosts in make_hosts(3, PROGRAM):
        certificate = make_certificate("test")
        for name in job_hosts.names:
            write_job_certificate(Layout(job_hosts.folder / name), *certificate)
        yield job_hosts


def start(hosts: Hosts, name: str, call: str, arguments_by_host: Mapping[str, object], **time_limits: float) -> Host:
    return hosts.start_program(name, time_limits, call=call, arguments=arguments_by_host)


def run(hosts: Hosts, call: str, arguments_by_host: Mapping[str, object], **time_limits: float) -> dict[str, End]:
    for name in hosts.names:
        start(hosts, name, call, arguments_by_host, **time_limits)
    return hosts.wait_for_end()


def start_waiting_hosts(hosts: Hosts, **time_limits: float) -> None:
    for name in hosts.names:
        start(hosts, name, "wait", dict.fromkeys(hosts.names, ()), **time_limits)
    for host in hosts.by_name.values():
        host.wait_for("ready")


def make_failing_arguments(hosts: Hosts, failing_host: str, *arguments: object) -> dict[str, object]:
    """Return the arguments of the call on each host. The last argument is whether the call fails."""
    return {name: (*arguments, name == failing_host) for name in hosts.names}


def parse_results(ends: Mapping[str, End]) -> dict[str, Any]:
    """Check that all hosts have succeeded; return the results by host, which the first host has printed."""
    assert {end.exit_code for end in ends.values()} == {0}, ends
    line = next(line for line in ends["algo-1"].output.splitlines() if line.startswith("results "))
    content: dict[str, Any] = json.loads(line.removeprefix("results "))
    return content


def test_each_host_runs_its_own_call(hosts: Hosts) -> None:
    results = parse_results(run(hosts, "repeat", {name: (name[-1], 2) for name in hosts.names}))
    assert {host: text for host, (text, _) in results.items()} == {"algo-1": "11", "algo-2": "22", "algo-3": "33"}
    assert {host: pid for host, (_, pid) in results.items()} == {
        name: host.process.pid for name, host in hosts.by_name.items()
    }


def test_hosts_without_a_call_wait_for_the_end(hosts: Hosts) -> None:
    results = parse_results(run(hosts, "repeat", {"algo-3": ("x", 1)}))
    assert list(results) == ["algo-3"]


def test_arguments_and_results_may_have_megabytes(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start_program(
            name, {}, call="repeat", then="measure_length", arguments=dict.fromkeys(hosts.names, ("x", 20_000_000))
        )
    ends = hosts.wait_for_end()
    assert parse_results(ends) == {name: [20_000_000, True] for name in hosts.names}
    assert not any("Warning" in end.output for end in ends.values())


@pytest.mark.parametrize("failing_host", ["algo-1", "algo-3"])
def test_failure_of_one_host_ends_all_hosts_and_leaves_no_file(failing_host: str, hosts: Hosts, tmp_path: Path) -> None:
    ends = run(hosts, "fail_while_writing", make_failing_arguments(hosts, failing_host, str(tmp_path)))
    assert {(end.exit_code, end.output) for end in ends.values()} == {(2, "UserError row 5 is bad\n")}
    assert all(end.seconds < MAX_JOB_SECONDS for end in ends.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing_host", ["algo-1", "algo-3"])
def test_files_of_successful_calls_are_removed_if_another_host_fails(
    failing_host: str, hosts: Hosts, tmp_path: Path
) -> None:
    ends = run(hosts, "write_and_fail", make_failing_arguments(hosts, failing_host, str(tmp_path)))
    assert {(end.exit_code, end.output) for end in ends.values()} == {(2, "UserError row 5 is bad\n")}
    assert list(tmp_path.iterdir()) == []


def test_files_stay_if_all_hosts_succeed(hosts: Hosts, tmp_path: Path) -> None:
    ends = run(hosts, "write_and_fail", dict.fromkeys(hosts.names, (str(tmp_path), False)))
    assert {end.exit_code for end in ends.values()} == {0}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("failing_host", ["algo-1", "algo-3"])
def test_all_hosts_report_a_long_reason(failing_host: str, hosts: Hosts) -> None:
    ends = run(hosts, "fail_with_long_message", make_failing_arguments(hosts, failing_host))
    assert {(end.exit_code, end.output[:23]) for end in ends.values()} == {(2, "UserError row 5 is bad ")}


@pytest.mark.parametrize("failing_host", ["algo-1", "algo-3"])
def test_unexpected_error_is_logged_with_its_traceback_on_all_hosts(failing_host: str, hosts: Hosts) -> None:
    ends = run(hosts, "fail_unexpectedly", make_failing_arguments(hosts, failing_host))
    assert {end.exit_code for end in ends.values()} == {1}
    assert all("ZeroDivisionError: unexpected" in end.output for end in ends.values())
    other_outputs = [end.output for name, end in ends.items() if name != failing_host]
    assert all(printed.startswith(f"JobError host {failing_host} failed: ") for printed in other_outputs)
    assert all("fail_unexpectedly" in end.output for end in ends.values())


def test_other_hosts_report_a_full_disk(hosts: Hosts) -> None:
    ends = run(hosts, "fill_the_disk", make_failing_arguments(hosts, "algo-2"))
    for name in ("algo-1", "algo-3"):
        assert ends[name].exit_code == 3
        assert ends[name].output.startswith("PlatformError host algo-2 failed: no space left on the device")


@pytest.mark.parametrize("victim", ["algo-1", "algo-2"])
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_or_frozen_host_ends_the_other_hosts(victim: str, signal_number: signal.Signals, hosts: Hosts) -> None:
    start_waiting_hosts(hosts, LOST_SECONDS=2 if signal_number == signal.SIGSTOP else 20)
    hosts.by_name[victim].signal(signal_number)
    start_time = time.monotonic()
    ends = [hosts.by_name[name].wait_for_end() for name in hosts.names if name != victim]
    assert time.monotonic() - start_time < 8
    assert {end.exit_code for end in ends} == {3}
    assert all(end.output.startswith(f"PlatformError lost host {victim}: ") for end in ends), ends


def test_lost_host_is_the_reason_of_a_broken_call(hosts: Hosts) -> None:
    ends = run(hosts, "drop_dask_connection", {"algo-2": ()}, CERTAIN_REASON_WAIT_SECONDS=20)
    assert ends.pop("algo-2").exit_code == 9
    assert all(end.output.startswith("PlatformError lost host algo-2: ") for end in ends.values()), ends


@pytest.mark.parametrize("signalled_host", ["algo-1", "algo-2"])
def test_stop_signal_on_one_host_stops_all_hosts(signalled_host: str, hosts: Hosts) -> None:
    start_waiting_hosts(hosts)
    hosts.by_name[signalled_host].signal(signal.SIGTERM)
    start_time = time.monotonic()
    assert {end.output for end in hosts.wait_for_end().values()} == {"stopped by 15\n"}
    assert time.monotonic() - start_time < 8


@pytest.mark.parametrize(
    ("missing_host", "reason"),
    [
        ("algo-2", "host algo-2 did not join within 3 s: 2 of 3 hosts joined"),
        ("algo-1", "host algo-1, the first of the job, did not answer within 3 s"),
    ],
)
def test_all_hosts_name_a_host_that_does_not_start(missing_host: str, reason: str, hosts: Hosts) -> None:
    for name in hosts.names:
        if name != missing_host:
            start(hosts, name, "wait", {}, JOIN_SECONDS=3)
    ends = hosts.wait_for_end()
    assert {end.exit_code for end in ends.values()} == {3}
    assert all(reason in end.output for end in ends.values())


def test_unauthenticated_connections_do_not_disturb_the_job(hosts: Hosts, tmp_path: Path) -> None:
    """Some connections are silent, some send garbage, and some send a pickled object."""
    file = tmp_path / "trace"
    start(hosts, "algo-1", "repeat", arguments := {name: (name, 1) for name in hosts.names})
    content = pickle.dumps(Payload(file))
    messages = (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), b"algo-2", struct.pack("!i", len(content)) + content)
    clients = [hosts.connect() for _ in range(200)]
    for number, client in enumerate(clients):
        with contextlib.suppress(ConnectionError):
            client.sendall(messages[number % len(messages)])
    for name in hosts.names[1:]:
        start(hosts, name, "repeat", arguments)
    results = parse_results(hosts.wait_for_end())
    assert {host: text for host, (text, _) in results.items()} == {name: name for name in hosts.names}
    assert not file.exists()
    for client in clients:
        client.close()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@pytest.mark.slow
def test_host_with_another_secret_gets_a_remedy(hosts: Hosts) -> None:
    for name in hosts.names[:2]:
        start(hosts, name, "wait", {}, JOIN_SECONDS=5)
    hosts.secret = secrets.token_hex(32)
    start(hosts, "algo-3", "wait", {}, JOIN_SECONDS=3)
    ends = hosts.wait_for_end()
    remedy = f"give every host of the job the same {Layout().job_secret}"
    assert {end.exit_code for end in ends.values()} == {3}
    assert all(remedy in end.output for end in ends.values()), ends
    assert "host algo-3 did not join within 5 s: 2 of 3 hosts joined; " in ends["algo-1"].output
    assert "connections used a wrong job secret" in ends["algo-1"].output
    assert "host algo-1, the first of the job, did not answer within 3 s" in ends["algo-3"].output


@pytest.mark.slow
def test_host_with_another_certificate_gets_no_task(hosts: Hosts) -> None:
    layout = Layout(hosts.folder / "algo-3")
    for path in (layout.job_certificate, layout.job_key):
        path.unlink()
    write_job_certificate(layout, *make_certificate("test"))
    ends = run(hosts, "wait", dict.fromkeys(hosts.names, ()), START_SECONDS=8)
    assert {end.exit_code for end in ends.values()} == {3}
    assert not any("ready" in end.output for end in ends.values())
    assert all("algo-3 did not connect to tls://" in end.output for end in ends.values()), ends


def test_host_without_a_certificate_is_refused(hosts: Hosts) -> None:
    Layout(hosts.folder / "algo-1").job_certificate.unlink()
    end = start(hosts, "algo-1", "wait", {}).wait_for_end()
    assert end.exit_code == 2
    assert "certificate.pem does not exist: give every host of the job the same certificate" in end.output


def test_image_without_dask_gets_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="this image has no Dask"):
        run_on_hosts(ResourceConfig("algo-1", ("algo-1", "algo-2")), lambda _: None)


def test_unavailable_port_of_dask_is_named_on_all_hosts(hosts: Hosts) -> None:
    address = hosts.addresses["algo-1"]
    with socket.create_server((address, 0)) as other_program:
        port = other_program.getsockname()[1]
        hosts.ports = {**hosts.ports, ("algo-1", DASK_PORT): port}
        ends = run(hosts, "wait", dict.fromkeys(hosts.names, ()))
    assert {end.exit_code for end in ends.values()} == {3}
    assert all(f"PlatformError cannot listen on {address} port {port}: " in end.output for end in ends.values()), ends


def test_secret_that_is_too_short_is_refused(hosts: Hosts) -> None:
    hosts.secret = "8" * 8
    end = start(hosts, "algo-1", "wait", {}).wait_for_end()
    assert end.exit_code == 2
    assert "has 8 bytes: give every host of the job the same 32 random bytes or more" in end.output


def test_errors_of_a_worker_are_omitted_only_while_it_closes(caplog: pytest.LogCaptureFixture) -> None:
    from distributed import Status  # an import in the module would delay each run of other tests by a second

    worker = cast("Worker", SimpleNamespace(status=Status.running))
    logger = logging.getLogger("distributed.worker")
    filters = list(logger.filters)
    mute_log_while_closing(worker)
    try:
        logger.error("the scheduler does not answer")
        worker.status = Status.closing
        logger.error("the heartbeat was interrupted")
    finally:
        logger.filters[:] = filters
    assert caplog.messages == ["the scheduler does not answer"]


def test_error_of_a_stopped_listener_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    from distributed.comm.tcp import TCPListener

    logger = logging.getLogger("tornado.application")
    logger.addFilter(is_not_about_a_stopped_listener)
    try:
        for call in (TCPListener("127.0.0.1:0", print).get_host_port, lambda: 1 / 0):
            try:
                call()
            except Exception:
                logger.exception("Exception in callback")
        logger.error("another error")
    finally:
        logger.removeFilter(is_not_about_a_stopped_listener)
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError, None]


def test_hosts_without_a_secret_work_together(hosts: Hosts) -> None:
    """On AWS, jobs have no secret."""
    hosts.secret = ""
    ends = run(hosts, "repeat", dict.fromkeys(hosts.names, ("x", 1)))
    assert set(parse_results(ends)) == set(hosts.names)


@pytest.mark.parametrize("answer", [b"", bytes(peers.CHALLENGE_BYTES)], ids=["silent", "wrong answer"])
def test_host_waits_for_the_first_host_while_another_program_has_its_port(answer: bytes, hosts: Hosts) -> None:
    arguments = dict.fromkeys(hosts.names, ("x", 1))
    with socket.create_server(hosts.first_address, reuse_port=True) as other_program:
        for name in hosts.names[1:]:
            start(hosts, name, "repeat", arguments)
        callers = [other_program.accept()[0] for _ in hosts.names[1:]]
        for caller in callers:
            caller.recv(peers.HELLO_BYTES)
            caller.sendall(answer)
    start(hosts, "algo-1", "repeat", arguments)
    for caller in callers:
        caller.close()
    assert set(parse_results(hosts.wait_for_end())) == set(hosts.names)


def test_first_host_stops_listening_when_all_hosts_have_joined(hosts: Hosts) -> None:
    start_waiting_hosts(hosts)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(hosts.first_address)


def test_unavailable_port_is_named(hosts: Hosts) -> None:
    address = hosts.addresses["algo-1"]
    with socket.create_server((address, 0)) as other_program:
        port = other_program.getsockname()[1]
        hosts.ports = {("algo-1", HEARTBEAT_PORT): port}
        end = start(hosts, "algo-1", "wait", {}).wait_for_end()
    assert (end.exit_code, end.output.split(":")[0]) == (3, f"PlatformError cannot listen on {address} port {port}")
