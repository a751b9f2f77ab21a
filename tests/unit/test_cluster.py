"""Hosts of a processing job, as real processes with different loopback addresses."""

import contextlib
import importlib.util
import json
import pickle
import secrets
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from microjobs import peers
from microjobs.contract import Layout, ResourceConfig, write_job_certificate
from microjobs.errors import UserError
from microjobs.hosts import run_on_hosts
from microjobs.network import DASK_PORT, WATCH_PORT
from microjobs_orchestrator.local.certificates import make_certificate
from tests.unit.cluster_host import PROGRAM
from tests.unit.hosts import End, Host, Hosts, make_hosts

LIMIT_SECONDS = 30
"""Half of the time for which other hosts would wait. On a busy machine, three hosts need 10 s to import Dask."""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    for started in make_hosts(3, PROGRAM):
        certificate = make_certificate("test")
        for name in started.names:
            write_job_certificate(Layout(started.folder / name), *certificate)
        yield started


def start(hosts: Hosts, name: str, call: str, arguments: Mapping[str, object], **limits: float) -> Host:
    return hosts.start_program(name, limits, call=call, arguments=arguments)


def run(hosts: Hosts, call: str, arguments: Mapping[str, object], **limits: float) -> dict[str, End]:
    for name in hosts.names:
        start(hosts, name, call, arguments, **limits)
    return hosts.end()


def start_waiting_hosts(hosts: Hosts, **limits: float) -> None:
    for name in hosts.names:
        start(hosts, name, "wait", dict.fromkeys(hosts.names, ()), **limits)
    for host in hosts.started.values():
        host.wait_for("ready")


def make_failing_arguments(hosts: Hosts, failing: str, *common: object) -> dict[str, object]:
    return {name: (*common, name == failing) for name in hosts.names}


def parse_results(ends: Mapping[str, End]) -> dict[str, Any]:
    assert {end.code for end in ends.values()} == {0}, ends
    line = next(line for line in ends["algo-1"].printed.splitlines() if line.startswith("results "))
    content: dict[str, Any] = json.loads(line.removeprefix("results "))
    return content


def test_each_host_runs_its_own_call(hosts: Hosts) -> None:
    results = parse_results(run(hosts, "repeat", {name: (name[-1], 2) for name in hosts.names}))
    assert {host: text for host, (text, _) in results.items()} == {"algo-1": "11", "algo-2": "22", "algo-3": "33"}
    assert {host: pid for host, (_, pid) in results.items()} == {
        name: host.process.pid for name, host in hosts.started.items()
    }


def test_hosts_without_a_call_wait_for_the_end(hosts: Hosts) -> None:
    results = parse_results(run(hosts, "repeat", {"algo-3": ("x", 1)}))
    assert list(results) == ["algo-3"]


def test_arguments_and_results_may_have_megabytes(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start_program(
            name, {}, call="repeat", then="length", arguments=dict.fromkeys(hosts.names, ("x", 20_000_000))
        )
    ends = hosts.end()
    assert parse_results(ends) == {name: [20_000_000, True] for name in hosts.names}
    assert not any("Warning" in end.printed for end in ends.values())


@pytest.mark.parametrize("failing", ["algo-1", "algo-3"])
def test_failure_of_one_host_ends_all_hosts_and_leaves_no_file(failing: str, hosts: Hosts, tmp_path: Path) -> None:
    ends = run(hosts, "fail_for_the_user", make_failing_arguments(hosts, failing, str(tmp_path)))
    assert {(end.code, end.printed) for end in ends.values()} == {(2, "UserError row 5 is bad\n")}
    assert all(end.seconds < LIMIT_SECONDS for end in ends.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["algo-1", "algo-3"])
def test_files_of_successful_calls_are_removed_if_another_host_fails(
    failing: str, hosts: Hosts, tmp_path: Path
) -> None:
    ends = run(hosts, "write_and_fail", make_failing_arguments(hosts, failing, str(tmp_path)))
    assert {(end.code, end.printed) for end in ends.values()} == {(2, "UserError row 5 is bad\n")}
    assert list(tmp_path.iterdir()) == []


def test_files_stay_if_all_hosts_succeed(hosts: Hosts, tmp_path: Path) -> None:
    ends = run(hosts, "write_and_fail", dict.fromkeys(hosts.names, (str(tmp_path), False)))
    assert {end.code for end in ends.values()} == {0}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("failing", ["algo-1", "algo-3"])
def test_all_hosts_report_a_long_reason(failing: str, hosts: Hosts) -> None:
    ends = run(hosts, "fail_at_length", make_failing_arguments(hosts, failing))
    assert {(end.code, end.printed[:23]) for end in ends.values()} == {(2, "UserError row 5 is bad ")}


@pytest.mark.parametrize("failing", ["algo-1", "algo-3"])
def test_unexpected_error_is_logged_with_its_traceback_on_all_hosts(failing: str, hosts: Hosts) -> None:
    ends = run(hosts, "fail_unexpectedly", make_failing_arguments(hosts, failing))
    assert {end.code for end in ends.values()} == {1}
    assert all("ZeroDivisionError: of ours" in end.printed for end in ends.values())
    others = [end.printed for name, end in ends.items() if name != failing]
    assert all(printed.startswith(f"JobError host {failing} failed: ") for printed in others)
    assert all("fail_unexpectedly" in end.printed for end in ends.values())


def test_other_hosts_report_a_full_disk(hosts: Hosts) -> None:
    ends = run(hosts, "fill_the_disk", make_failing_arguments(hosts, "algo-2"))
    for name in ("algo-1", "algo-3"):
        assert ends[name].code == 3
        assert ends[name].printed.startswith("PlatformError host algo-2 failed: no space left on the device")


@pytest.mark.parametrize("victim", ["algo-1", "algo-2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_or_frozen_host_ends_the_others(victim: str, number: signal.Signals, hosts: Hosts) -> None:
    start_waiting_hosts(hosts, LOST_SECONDS=2 if number == signal.SIGSTOP else 20)
    hosts.started[victim].signal(number)
    began = time.monotonic()
    ends = [hosts.started[name].end() for name in hosts.names if name != victim]
    assert time.monotonic() - began < 8
    assert {end.code for end in ends} == {3}
    assert all(end.printed.startswith(f"PlatformError lost host {victim}: ") for end in ends), ends


def test_lost_host_is_the_reason_of_a_broken_call(hosts: Hosts) -> None:
    ends = run(hosts, "drop_the_call", {"algo-2": ()}, ECHO_SECONDS=20)
    assert ends.pop("algo-2").code == 9
    assert all(end.printed.startswith("PlatformError lost host algo-2: ") for end in ends.values()), ends


@pytest.mark.parametrize("stopped", ["algo-1", "algo-2"])
def test_stop_signal_on_one_host_stops_all_hosts(stopped: str, hosts: Hosts) -> None:
    start_waiting_hosts(hosts)
    hosts.started[stopped].signal(signal.SIGTERM)
    began = time.monotonic()
    assert {end.printed for end in hosts.end().values()} == {"stopped by 15\n"}
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        ("algo-2", "host algo-2 did not join within 3 s: 2 of 3 hosts joined"),
        ("algo-1", "host algo-1, the first of the job, did not answer within 3 s"),
    ],
)
def test_all_hosts_name_a_host_that_does_not_start(absent: str, reason: str, hosts: Hosts) -> None:
    for name in hosts.names:
        if name != absent:
            start(hosts, name, "wait", {}, JOIN_SECONDS=3)
    ends = hosts.end()
    assert {end.code for end in ends.values()} == {3}
    assert all(reason in end.printed for end in ends.values())


def test_unauthenticated_connections_do_not_disturb_the_job(hosts: Hosts, tmp_path: Path) -> None:
    """Some connections are silent, some send garbage, and one sends a pickled object."""
    trace = tmp_path / "trace"
    start(hosts, "algo-1", "repeat", arguments := {name: (name, 1) for name in hosts.names})
    content = pickle.dumps(Payload(trace))
    messages = (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), b"algo-2", struct.pack("!i", len(content)) + content)
    strangers = [hosts.connect() for _ in range(200)]
    for number, stranger in enumerate(strangers):
        with contextlib.suppress(ConnectionError):
            stranger.sendall(messages[number % len(messages)])
    for name in hosts.names[1:]:
        start(hosts, name, "repeat", arguments)
    results = parse_results(hosts.end())
    assert {host: text for host, (text, _) in results.items()} == {name: name for name in hosts.names}
    assert not trace.exists()
    for stranger in strangers:
        stranger.close()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_host_with_another_secret_gets_a_remedy(hosts: Hosts) -> None:
    for name in hosts.names[:2]:
        start(hosts, name, "wait", {}, JOIN_SECONDS=5)
    hosts.secret = secrets.token_hex(32)
    start(hosts, "algo-3", "wait", {}, JOIN_SECONDS=3)
    ends = hosts.end()
    remedy = f"give every host of the job the same {Layout().job_secret}"
    assert {end.code for end in ends.values()} == {3}
    assert all(remedy in end.printed for end in ends.values()), ends
    assert "host algo-3 did not join within 5 s: 2 of 3 hosts joined; " in ends["algo-1"].printed
    assert "connections used a wrong job secret" in ends["algo-1"].printed
    assert "host algo-1, the first of the job, did not answer within 3 s" in ends["algo-3"].printed


def test_host_with_another_certificate_gets_no_task(hosts: Hosts) -> None:
    layout = Layout(hosts.folder / "algo-3")
    for path in (layout.job_certificate, layout.job_key):
        path.unlink()
    write_job_certificate(layout, *make_certificate("test"))
    ends = run(hosts, "wait", dict.fromkeys(hosts.names, ()), START_SECONDS=8)
    assert {end.code for end in ends.values()} == {3}
    assert not any("ready" in end.printed for end in ends.values())
    assert all("algo-3 did not connect to tls://" in end.printed for end in ends.values()), ends


def test_host_without_a_certificate_is_refused(hosts: Hosts) -> None:
    Layout(hosts.folder / "algo-1").job_certificate.unlink()
    end = start(hosts, "algo-1", "wait", {}).end()
    assert end.code == 2
    assert "certificate.pem does not exist: give every host of the job the same certificate" in end.printed


def test_image_without_dask_gets_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="this image has no Dask"):
        run_on_hosts(ResourceConfig("algo-1", ("algo-1", "algo-2")), lambda _: None)


def test_unavailable_port_of_dask_is_named_on_all_hosts(hosts: Hosts) -> None:
    address = hosts.addresses["algo-1"]
    with socket.create_server((address, 0)) as other:
        port = other.getsockname()[1]
        hosts.ports = {**hosts.ports, ("algo-1", DASK_PORT): port}
        ends = run(hosts, "wait", dict.fromkeys(hosts.names, ()))
    assert {end.code for end in ends.values()} == {3}
    assert all(f"PlatformError cannot listen on {address} port {port}: " in end.printed for end in ends.values()), ends


def test_secret_that_is_too_short_is_refused(hosts: Hosts) -> None:
    hosts.secret = "8" * 8
    end = start(hosts, "algo-1", "wait", {}).end()
    assert end.code == 2
    assert "has 8 bytes: give every host of the job the same 32 random bytes or more" in end.printed


def test_hosts_without_a_secret_work_together(hosts: Hosts) -> None:
    """AWS has no such secret."""
    hosts.secret = ""
    ends = run(hosts, "repeat", dict.fromkeys(hosts.names, ("x", 1)))
    assert set(parse_results(ends)) == set(hosts.names)


@pytest.mark.parametrize("answer", [b"", bytes(peers.CHALLENGE_BYTES)], ids=["silent", "wrong answer"])
def test_host_waits_for_the_first_host_while_another_program_has_its_port(answer: bytes, hosts: Hosts) -> None:
    arguments = dict.fromkeys(hosts.names, ("x", 1))
    with socket.create_server(hosts.first, reuse_port=True) as stranger:
        for name in hosts.names[1:]:
            start(hosts, name, "repeat", arguments)
        callers = [stranger.accept()[0] for _ in hosts.names[1:]]
        for caller in callers:
            caller.recv(peers.HELLO_BYTES)
            caller.sendall(answer)
    start(hosts, "algo-1", "repeat", arguments)
    for caller in callers:
        caller.close()
    assert set(parse_results(hosts.end())) == set(hosts.names)


def test_first_host_stops_listening_when_all_hosts_have_joined(hosts: Hosts) -> None:
    start_waiting_hosts(hosts)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(hosts.first)


def test_unavailable_port_is_named(hosts: Hosts) -> None:
    address = hosts.addresses["algo-1"]
    with socket.create_server((address, 0)) as other:
        port = other.getsockname()[1]
        hosts.ports = {("algo-1", WATCH_PORT): port}
        end = start(hosts, "algo-1", "wait", {}).end()
    assert (end.code, end.printed.split(":")[0]) == (3, f"PlatformError cannot listen on {address} port {port}")
