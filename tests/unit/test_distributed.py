"""Hosts of a training job, as real processes with different loopback addresses."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from microjobs.contract import ResourceConfig
from microjobs.distributed import count_gpus, make_tf_program, make_torchrun_program, must_launch
from microjobs.endings import Ending
from microjobs.interpreter import BYTECODE_CACHING_FLAGS, FLAGS, make_python_command
from microjobs.network import TENSORFLOW_PORT, TORCH_PORT, Network
from microjobs.worker import REPORT_VARIABLE, report
from tests.unit.hosts import Hosts, is_running, make_hosts, make_resource_config

READY_PROGRAM = "print('ready', flush=True)\n"
WAIT_PROGRAM = "import time; time.sleep(60)"
FAIL_PROGRAM = "from microjobs import worker; import sys; worker.report({code}, 'row 5 is bad'); sys.exit({code})"
WAIT_FOR_STOP_PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit()))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    yield from make_hosts()


def test_hosts_wait_for_the_slowest_host(hosts: Hosts) -> None:
    slow_program = "import time; time.sleep(1)"
    ends = hosts.run({"algo-1": "", "algo-2": slow_program, "algo-3": ""})
    assert {end.exit_code for end in ends.values()} == {0}
    assert all(end.seconds > 1 for end in ends.values())


def test_finished_worker_waits_for_all_workers(hosts: Hosts, tmp_path: Path) -> None:
    """If a process exited before other processes read the data that it has sent, the data could be lost."""
    finish_program = "from microjobs import worker; worker.finish(); print('exited', flush=True)"
    early_program = f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); {finish_program}"
    running_workers = f"[os.kill(int(path.name), 0) for path in pathlib.Path({str(tmp_path)!r}).iterdir()]"
    late_program = f"import os, pathlib, time; time.sleep(1.5); assert len({running_workers}) == 2; {finish_program}"
    ends = hosts.run({"algo-1": early_program, "algo-2": late_program, "algo-3": early_program})
    assert {(end.exit_code, end.output) for end in ends.values()} == {(0, "")}, ends
    assert all(end.seconds < 10 for end in ends.values())


@pytest.mark.parametrize(("code", "error"), [(2, "UserError"), (3, "PlatformError"), (1, "JobError")])
@pytest.mark.parametrize("failing_host", ["algo-1", "algo-3"])
def test_failing_worker_ends_all_hosts_with_its_reason(failing_host: str, code: int, error: str, hosts: Hosts) -> None:
    ends = hosts.run(
        {name: FAIL_PROGRAM.format(code=code) if name == failing_host else WAIT_PROGRAM for name in hosts.names}
    )
    assert {(end.exit_code, end.output) for end in ends.values()} == {
        (code, f"{error} host {failing_host} failed: row 5 is bad\n")
    }
    assert all(end.seconds < 10 for end in ends.values())


def test_failing_worker_ends_other_workers_with_sigkill(hosts: Hosts) -> None:
    failing_program = "import time; time.sleep(1); " + FAIL_PROGRAM.format(code=2)
    ends = hosts.run({name: failing_program if name == "algo-1" else WAIT_FOR_STOP_PROGRAM for name in hosts.names})
    assert not [end for end in ends.values() if "saved" in end.output]


def test_consequence_of_a_failure_is_not_the_reason(hosts: Hosts) -> None:
    disconnected_program = "from microjobs import worker; import sys; worker.report(1, 'connection lost'); sys.exit(1)"
    killed_program = "import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"
    ends = hosts.run(
        {"algo-1": disconnected_program, "algo-2": killed_program, "algo-3": disconnected_program},
        CERTAIN_REASON_WAIT_SECONDS=20,
    )
    reason = "its process was ended by SIGKILL without reporting a reason: most likely out of memory; see the log above"
    assert {end.output for end in ends.values()} == {f"PlatformError host algo-2 failed: {reason}\n"}


def test_earliest_of_several_uncertain_reasons_is_reported(hosts: Hosts) -> None:
    late_program = "import time; time.sleep(2); " + FAIL_PROGRAM.format(code=1)
    ends = hosts.run(
        {"algo-1": late_program, "algo-2": FAIL_PROGRAM.format(code=1), "algo-3": late_program},
        CERTAIN_REASON_WAIT_SECONDS=3,
    )
    assert {end.output for end in ends.values()} == {"JobError host algo-2 failed: row 5 is bad\n"}


@pytest.mark.slow
def test_earlier_lost_connection_is_not_the_reason(hosts: Hosts) -> None:
    early_program = "from microjobs import worker; worker.report(1, 'RuntimeError: Connection closed by peer [algo-2]')"
    late_program = "import time; time.sleep(2); " + FAIL_PROGRAM.format(code=1)
    ends = hosts.run(
        {"algo-1": early_program, "algo-2": late_program, "algo-3": early_program}, CERTAIN_REASON_WAIT_SECONDS=4
    )
    assert {end.output for end in ends.values()} == {"JobError host algo-2 failed: row 5 is bad\n"}


def test_worker_without_a_reason_is_reported_with_its_exit_code(hosts: Hosts) -> None:
    ends = hosts.run({"algo-1": WAIT_PROGRAM, "algo-2": "import sys; sys.exit(9)", "algo-3": WAIT_PROGRAM})
    assert {end.output for end in ends.values()} == {
        "JobError host algo-2 failed: its process exited with code 9 without reporting a reason: see the log above\n"
    }


@pytest.mark.parametrize("victim", ["algo-1", "algo-2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_or_frozen_host_ends_the_other_hosts(victim: str, number: signal.Signals, hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, READY_PROGRAM + WAIT_PROGRAM, LOST_SECONDS=2 if number == signal.SIGSTOP else 20)
    for host in hosts.by_name.values():
        host.wait_for("ready")
    hosts.by_name[victim].signal(number)
    start = time.monotonic()
    ends = [hosts.by_name[name].wait_for_end() for name in hosts.names if name != victim]
    assert time.monotonic() - start < 8
    assert {end.exit_code for end in ends} == {3}
    assert all(end.output.startswith(f"PlatformError lost host {victim}: ") for end in ends)


def test_all_hosts_name_a_host_that_does_not_start(hosts: Hosts) -> None:
    ends = hosts.run({"algo-1": WAIT_PROGRAM, "algo-3": WAIT_PROGRAM}, JOIN_SECONDS=3)
    assert {end.exit_code for end in ends.values()} == {3}
    assert all("host algo-2 did not join within 3 s: 2 of 3 hosts joined" in end.output for end in ends.values())


def test_other_hosts_name_a_first_host_that_does_not_start(hosts: Hosts) -> None:
    ends = hosts.run({"algo-2": WAIT_PROGRAM, "algo-3": WAIT_PROGRAM}, JOIN_SECONDS=1)
    assert all("host algo-1, the first of the job, did not answer within 1 s" in end.output for end in ends.values())


def test_stop_signal_on_one_host_stops_all_hosts(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, WAIT_FOR_STOP_PROGRAM)
    for host in hosts.by_name.values():
        host.wait_for("ready")
    hosts.by_name["algo-2"].signal(signal.SIGTERM)
    assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "saved\n")}


def test_worker_stopped_before_training_stops_all_hosts(hosts: Hosts) -> None:
    """The other workers wait in their frameworks, so they cannot handle the stop signal."""
    stopped_worker = (
        READY_PROGRAM + "from microjobs import worker; import signal; signal.sigwait([15]); worker.report(143, '')"
    )
    for name in hosts.names:
        hosts.start(name, stopped_worker if name == "algo-3" else READY_PROGRAM + WAIT_PROGRAM)
    for host in hosts.by_name.values():
        host.wait_for("ready")
    hosts.by_name["algo-1"].signal(signal.SIGTERM)
    assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "stopped by 15\n")}


@pytest.mark.parametrize("name", ["algo-1", "algo-2"])
def test_stop_signal_ends_a_host_that_waits_for_others(name: str, hosts: Hosts) -> None:
    host = hosts.start(name, WAIT_PROGRAM)
    host.wait_for_sigterm_handler()
    time.sleep(0.2)  # after this time, the host waits
    host.signal(signal.SIGTERM)
    end = host.wait_for_end()
    assert (end.exit_code, end.output) == (0, "stopped by 15\n")
    assert end.seconds < 15


def test_stop_of_a_host_that_is_joining_stops_the_first_host(hosts: Hosts) -> None:
    hosts.start("algo-1", WAIT_PROGRAM)
    message = {"ending": asdict(Ending("algo-3", 128 + signal.SIGTERM))}
    with contextlib.closing(hosts.connect_as("algo-3")) as caller:
        caller.send(json.dumps(message).encode())
        end = hosts.wait_for_end()["algo-1"]
    assert (end.exit_code, end.output) == (0, "stopped by 15\n")
    assert end.seconds < 15


@pytest.mark.slow
def test_paused_hosts_are_not_lost(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, READY_PROGRAM + "import time; time.sleep(1)", LOST_SECONDS=2)
    for host in hosts.by_name.values():
        host.wait_for("ready")
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for host in hosts.by_name.values():
            host.signal(number)
        time.sleep(3)
    assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "")}


def test_stop_reaches_the_workers_of_an_agent(hosts: Hosts) -> None:
    """If torchrun received the signal, it would end its workers with an error."""
    agent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {WAIT_FOR_STOP_PROGRAM!r}]))"
    for name in hosts.names:
        hosts.start(name, agent, is_agent=True)
    for host in hosts.by_name.values():
        host.wait_for("ready")
    hosts.by_name["algo-3"].signal(signal.SIGTERM)
    assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "saved\n")}


def test_workers_of_an_agent_are_ended_with_the_job(hosts: Hosts, tmp_path: Path) -> None:
    worker = f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))"
    worker += "; " + WAIT_PROGRAM
    agent = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {worker!r}], start_new_session=True)"
    hosts.start("algo-1", agent, is_agent=True)
    wait_for_pid = (
        f"import pathlib, time\nwhile not any(pathlib.Path({str(tmp_path)!r}).glob('pid')): time.sleep(0.01)\n"
    )
    hosts.start("algo-2", wait_for_pid + "time.sleep(0.5); " + FAIL_PROGRAM.format(code=2))
    hosts.start("algo-3", WAIT_PROGRAM)
    assert {end.exit_code for end in hosts.wait_for_end().values()} == {2}
    assert not is_running(tmp_path / "pid")


def test_failing_script_is_explained(hosts: Hosts) -> None:
    ends = hosts.run(
        {"algo-1": WAIT_PROGRAM, "algo-2": "import sys; sys.exit(5)", "algo-3": WAIT_PROGRAM}, is_script=True
    )
    assert {end.output for end in ends.values()} == {"JobError host algo-2 failed: exit code 5\n"}


def test_unauthenticated_messages_are_ignored(hosts: Hosts) -> None:
    """One message claims that the job ended, in the format that hosts used before they authenticated each other."""
    hosts.start("algo-1", "")
    messages = ({"host": "algo-3"}, {"ending": asdict(Ending("algo-3", 2, "a false ending"))})
    false_messages = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    connections = []
    for content in (b"GET / HTTP/1.1\r\n\r\n", false_messages, b"\0" * 100_000, b""):
        connections.append(hosts.connect())
        connections[-1].sendall(content)
    hosts.start("algo-2", "")
    hosts.start("algo-3", "")
    assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "")}
    for connection in connections:
        connection.close()


def test_only_the_first_host_may_send_a_verdict(hosts: Hosts) -> None:
    for name in ("algo-1", "algo-2"):
        hosts.start(name, "")
    verdict, ending = Ending("algo-3", 2, "a false verdict"), Ending("algo-3")
    with contextlib.closing(hosts.connect_as("algo-3")) as caller:
        caller.send(json.dumps({"verdict": asdict(verdict)}).encode())
        caller.send(json.dumps({"ending": asdict(ending)}).encode())
        assert {(end.exit_code, end.output) for end in hosts.wait_for_end().values()} == {(0, "")}


def test_long_reason_is_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setenv(REPORT_VARIABLE, f"/proc/{os.getpid()}/fd/{write_end}")
    assert report(1, "first line\n" + "ä" * 10_000 + "\nlast line")
    line = os.read(read_end, 1 << 16)
    code, reason = json.loads(line)
    assert len(line) <= 4096
    assert code == 1
    assert reason.startswith("first line\n")
    assert reason.endswith("last line")
    os.close(read_end)
    os.close(write_end)


def test_process_reports_if_it_is_a_worker_and_launches_workers_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPORT_VARIABLE, raising=False)
    assert not report(2, "reason")
    assert must_launch(make_resource_config("algo-1", 2))
    assert must_launch(make_resource_config("algo-1", 1), workers_per_host=2)
    assert not must_launch(make_resource_config("algo-1", 1))
    monkeypatch.setenv(REPORT_VARIABLE, "somewhere")
    assert not must_launch(make_resource_config("algo-1", 2))


@pytest.mark.parametrize(("stores_bytecode", "flags"), [(True, BYTECODE_CACHING_FLAGS), (False, FLAGS)])
def test_program_stores_bytecode_if_this_process_does(
    stores_bytecode: bool, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not stores_bytecode)
    assert make_python_command("-m", "json") == [sys.executable, flags, "-m", "json"]


def test_torchrun_gets_the_rank_and_the_address_of_the_first_host() -> None:
    program = make_torchrun_program(make_resource_config("algo-2", 4), 2, ["train.py"])
    arguments = " ".join(program.command)
    assert arguments == (
        f"{' '.join(make_python_command('-m', 'torch.distributed.run'))} --nnodes 4 --node-rank 1 --nproc-per-node 2 "
        "--master-addr algo-1 --master-port 7777 train.py"
    )
    assert program.is_agent


def test_torchrun_uses_the_jobs_network_interface() -> None:
    loopback = ResourceConfig("algo-1", ("algo-1", "algo-2"), network_interface="lo")
    assert make_torchrun_program(loopback, 1).variables["GLOO_SOCKET_IFNAME"] == "lo"
    unknown = ResourceConfig("algo-1", ("algo-1", "algo-2"), network_interface="ethwe")
    assert "GLOO_SOCKET_IFNAME" not in make_torchrun_program(unknown, 1).variables


def test_tf_config_names_every_host_as_a_worker() -> None:
    config = json.loads(make_tf_program(make_resource_config("algo-2", 2)).variables["TF_CONFIG"])
    assert config["cluster"] == {"worker": ["algo-1:8890", "algo-2:8890"]}
    assert config["task"] == {"type": "worker", "index": 1}


def test_frameworks_use_the_ports_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = {("algo-1", TORCH_PORT): 40001, ("algo-1", TENSORFLOW_PORT): 40002, ("algo-2", TENSORFLOW_PORT): 40003}
    network = Network("127.64.0.1", {"algo-1": "127.64.0.1", "algo-2": "127.64.0.2"}, ports)
    for name, value in network.make_variables().items():
        monkeypatch.setenv(name, value)
    config = json.loads(make_tf_program(make_resource_config("algo-1", 2)).variables["TF_CONFIG"])
    assert config["cluster"]["worker"] == ["127.64.0.1:40002", "127.64.0.2:40003"]
    command = " ".join(make_torchrun_program(make_resource_config("algo-2", 2), 1).command)
    assert "--master-addr 127.64.0.1 --master-port 40001" in command


def test_gpu_count_respects_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-1)'\necho 'GPU 1: H200 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert count_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert count_gpus() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.unlink()
    assert count_gpus() == 0
