"""Hosts that start workers and end together: real processes, each with an address of its own."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from microjobs.contract import ResourceConfig
from microjobs.distributed import gpu_count, must_launch, torchrun, with_tf_config
from microjobs.endings import Ending
from microjobs.interpreter import FLAGS
from microjobs.network import TENSORFLOW_PORT, TORCH_PORT, Network
from microjobs.worker import REPORT, report
from tests.unit.hosts import Hosts, alive, make_hosts, resources

READY = "print('ready', flush=True)\n"
WAIT = "import time; time.sleep(60)"
FAIL = "from microjobs import worker; import sys; worker.report({code}, 'row 5 is bad'); sys.exit({code})"
WAIT_FOR_STOP = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit()))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    yield from make_hosts()


def test_all_hosts_end_well_together(hosts: Hosts) -> None:
    slow = "import time; time.sleep(1)"
    ends = hosts.run({"algo-1": "", "algo-2": slow, "algo-3": ""})
    assert {end.code for end in ends.values()} == {0}
    assert all(end.seconds > 1 for end in ends.values())  # nobody leaves while another one may still fail


def test_worker_that_has_finished_stays_until_all_have(hosts: Hosts, tmp_path: Path) -> None:
    """A process that leaves takes along what it has sent and others have not read yet."""
    done = "from microjobs import worker; worker.finish(); print('left by itself', flush=True)"
    early = f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); {done}"
    there = f"[os.kill(int(path.name), 0) for path in pathlib.Path({str(tmp_path)!r}).iterdir()]"
    late = f"import os, pathlib, time; time.sleep(1.5); assert len({there}) == 2; {done}"
    ends = hosts.run({"algo-1": early, "algo-2": late, "algo-3": early})
    assert {(end.code, end.printed) for end in ends.values()} == {(0, "")}, ends
    assert all(end.seconds < 10 for end in ends.values())


@pytest.mark.parametrize(("code", "error"), [(2, "UserError"), (3, "PlatformError"), (1, "JobError")])
@pytest.mark.parametrize("failing", ["algo-1", "algo-3"])
def test_reason_of_a_failing_worker_ends_all(failing: str, code: int, error: str, hosts: Hosts) -> None:
    ends = hosts.run({name: FAIL.format(code=code) if name == failing else WAIT for name in hosts.names})
    assert {(end.code, end.printed) for end in ends.values()} == {
        (code, f"{error} host {failing} failed: row 5 is bad\n")
    }
    assert all(end.seconds < 10 for end in ends.values())


def test_echo_of_a_failure_is_not_the_reason(hosts: Hosts) -> None:
    echo = "from microjobs import worker; import sys; worker.report(1, 'connection lost'); sys.exit(1)"
    killed = "import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"
    ends = hosts.run({"algo-1": echo, "algo-2": killed, "algo-3": echo}, ECHO_SECONDS=20)
    reason = "the training was ended by SIGKILL without giving a reason: most likely out of memory; see the log above"
    assert {end.printed for end in ends.values()} == {f"PlatformError host algo-2 failed: {reason}\n"}


def test_first_of_several_doubtful_reasons_counts(hosts: Hosts) -> None:
    late = "import time; time.sleep(2); " + FAIL.format(code=1)
    ends = hosts.run({"algo-1": late, "algo-2": FAIL.format(code=1), "algo-3": late}, ECHO_SECONDS=3)
    assert {end.printed for end in ends.values()} == {"JobError host algo-2 failed: row 5 is bad\n"}


def test_lost_connection_is_not_the_reason_though_it_is_told_first(hosts: Hosts) -> None:
    early = "from microjobs import worker; worker.report(1, 'RuntimeError: Connection closed by peer [algo-2]')"
    late = "import time; time.sleep(2); " + FAIL.format(code=1)
    ends = hosts.run({"algo-1": early, "algo-2": late, "algo-3": early}, ECHO_SECONDS=4)
    assert {end.printed for end in ends.values()} == {"JobError host algo-2 failed: row 5 is bad\n"}


def test_worker_that_gives_no_reason_is_told_by_its_exit_code(hosts: Hosts) -> None:
    ends = hosts.run({"algo-1": WAIT, "algo-2": "import sys; sys.exit(9)", "algo-3": WAIT})
    assert {end.printed for end in ends.values()} == {
        "JobError host algo-2 failed: the training exited with code 9 without giving a reason: see the log above\n"
    }


@pytest.mark.parametrize("victim", ["algo-1", "algo-2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_or_frozen_host_ends_the_others(victim: str, number: signal.Signals, hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, READY + WAIT, LOST_SECONDS=2 if number == signal.SIGSTOP else 20)
    for host in hosts.started.values():
        host.wait_for("ready")
    hosts.started[victim].signal(number)
    start = time.monotonic()
    ends = [hosts.started[name].end() for name in hosts.names if name != victim]
    assert time.monotonic() - start < 8
    assert {end.code for end in ends} == {3}
    assert all(end.printed.startswith(f"PlatformError lost host {victim}: ") for end in ends)


def test_host_that_never_comes_is_named_by_all(hosts: Hosts) -> None:
    ends = hosts.run({"algo-1": WAIT, "algo-3": WAIT}, JOIN_SECONDS=3)
    assert {end.code for end in ends.values()} == {3}
    assert all("host algo-2 did not join within 3 s: 2 of 3 hosts came" in end.printed for end in ends.values())


def test_first_host_that_never_comes_is_named(hosts: Hosts) -> None:
    ends = hosts.run({"algo-2": WAIT, "algo-3": WAIT}, JOIN_SECONDS=1)
    assert all("host algo-1, the first of the job, did not answer within 1 s" in end.printed for end in ends.values())


def test_stop_of_one_host_stops_all(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, WAIT_FOR_STOP)
    for host in hosts.started.values():
        host.wait_for("ready")
    hosts.started["algo-2"].signal(signal.SIGTERM)
    assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "saved\n")}


def test_worker_stopped_before_it_began_stops_all(hosts: Hosts) -> None:
    """The others wait for it in their frameworks and cannot agree on a stop with it any more."""
    begun = READY + "from microjobs import worker; import signal; signal.sigwait([15]); worker.report(143, '')"
    for name in hosts.names:
        hosts.start(name, begun if name == "algo-3" else READY + WAIT)
    for host in hosts.started.values():
        host.wait_for("ready")
    hosts.started["algo-1"].signal(signal.SIGTERM)
    assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "stopped by 15\n")}


@pytest.mark.parametrize("name", ["algo-1", "algo-2"])
def test_stop_while_hosts_wait_for_each_other(name: str, hosts: Hosts) -> None:
    host = hosts.start(name, WAIT)
    host.wait_until_it_heeds_stops()
    time.sleep(0.2)  # by now it most likely waits
    host.signal(signal.SIGTERM)
    end = host.end()
    assert (end.code, end.printed) == (0, "stopped by 15\n")
    assert end.seconds < 15


def test_host_that_is_stopped_as_it_calls_is_heard(hosts: Hosts) -> None:
    hosts.start("algo-1", WAIT)
    said = {"ending": asdict(Ending("algo-3", 128 + signal.SIGTERM))}
    with contextlib.closing(hosts.call("algo-3")) as caller:
        caller.send(json.dumps(said).encode())
        end = hosts.end()["algo-1"]
    assert (end.code, end.printed) == (0, "stopped by 15\n")
    assert end.seconds < 15


def test_pause_of_all_hosts_loses_none(hosts: Hosts) -> None:
    for name in hosts.names:
        hosts.start(name, READY + "import time; time.sleep(1)", LOST_SECONDS=2)
    for host in hosts.started.values():
        host.wait_for("ready")
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for host in hosts.started.values():
            host.signal(number)
        time.sleep(3)
    assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "")}


def test_stop_reaches_the_workers_of_an_agent(hosts: Hosts) -> None:
    """Torchrun would end its workers by itself, with an error."""
    agent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {WAIT_FOR_STOP!r}]))"
    for name in hosts.names:
        hosts.start(name, agent, agent=True)
    for host in hosts.started.values():
        host.wait_for("ready")
    hosts.started["algo-3"].signal(signal.SIGTERM)
    assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "saved\n")}


def test_workers_of_an_agent_end_with_the_job(hosts: Hosts, tmp_path: Path) -> None:
    worker = f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))"
    worker += "; " + WAIT
    agent = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {worker!r}], start_new_session=True)"
    hosts.start("algo-1", agent, agent=True)
    there = f"import pathlib, time\nwhile not any(pathlib.Path({str(tmp_path)!r}).glob('pid')): time.sleep(0.01)\n"
    hosts.start("algo-2", there + "time.sleep(0.5); " + FAIL.format(code=2))
    hosts.start("algo-3", WAIT)
    assert {end.code for end in hosts.end().values()} == {2}
    assert not alive(tmp_path / "pid")


def test_script_that_fails_is_explained(hosts: Hosts) -> None:
    ends = hosts.run({"algo-1": WAIT, "algo-2": "import sys; sys.exit(5)", "algo-3": WAIT}, script=True)
    assert {end.printed for end in ends.values()} == {"JobError host algo-2 failed: said 5\n"}


def test_strangers_are_not_listened_to(hosts: Hosts) -> None:
    """One of them says that the job ended, as hosts did when they knew each other by name only."""
    hosts.start("algo-1", "")
    said = ({"host": "algo-3"}, {"ending": asdict(Ending("algo-3", 2, "a lie"))})
    lie = b"".join(json.dumps(message).encode() + b"\n" for message in said)
    strangers = []
    for words in (b"GET / HTTP/1.1\r\n\r\n", lie, b"\0" * 100_000, b""):
        strangers.append(hosts.connect())
        strangers[-1].sendall(words)
    hosts.start("algo-2", "")
    hosts.start("algo-3", "")
    assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "")}
    for stranger in strangers:
        stranger.close()


def test_verdict_of_another_host_than_the_first_is_ignored(hosts: Hosts) -> None:
    for name in ("algo-1", "algo-2"):
        hosts.start(name, "")
    verdict, ending = Ending("algo-3", 2, "a false verdict"), Ending("algo-3")
    with contextlib.closing(hosts.call("algo-3")) as caller:
        caller.send(json.dumps({"verdict": asdict(verdict)}).encode())
        caller.send(json.dumps({"ending": asdict(ending)}).encode())
        assert {(end.code, end.printed) for end in hosts.end().values()} == {(0, "")}


def test_report_of_a_long_reason_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setenv(REPORT, f"/proc/{os.getpid()}/fd/{writing}")
    assert report(1, "first line\n" + "ä" * 10_000 + "\nlast line")
    told = os.read(reading, 1 << 16)
    code, reason = json.loads(told)
    assert len(told) <= 4096
    assert code == 1
    assert reason.startswith("first line\n")
    assert reason.endswith("last line")
    os.close(reading)
    os.close(writing)


def test_nobody_asked_for_a_report_outside_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPORT, raising=False)
    assert not report(2, "reason")
    assert must_launch(resources("algo-1", 2))
    assert must_launch(resources("algo-1", 1), processes=2)
    assert not must_launch(resources("algo-1", 1))
    monkeypatch.setenv(REPORT, "somewhere")
    assert not must_launch(resources("algo-1", 2))


def test_torchrun_gets_ranks_and_the_first_hosts_address() -> None:
    program = torchrun(resources("algo-2", 4), 2, ["train.py"], Network())
    words = " ".join(program.command[1:])
    assert words == (
        f"{FLAGS} -m torch.distributed.run --nnodes 4 --node-rank 1 --nproc-per-node 2 "
        "--master-addr algo-1 --master-port 7777 train.py"
    )
    assert program.agent


def test_frameworks_use_the_jobs_network_interface() -> None:
    loopback = ResourceConfig("algo-1", ("algo-1", "algo-2"), network_interface="lo")
    assert torchrun(loopback, 1, network=Network()).variables["GLOO_SOCKET_IFNAME"] == "lo"
    unknown = ResourceConfig("algo-1", ("algo-1", "algo-2"), network_interface="ethwe")
    assert "GLOO_SOCKET_IFNAME" not in torchrun(unknown, 1, network=Network()).variables


def test_tf_config_names_every_host_as_a_worker() -> None:
    config = json.loads(with_tf_config(resources("algo-2", 2), network=Network()).variables["TF_CONFIG"])
    assert config["cluster"] == {"worker": ["algo-1:8890", "algo-2:8890"]}
    assert config["task"] == {"type": "worker", "index": 1}


def test_frameworks_get_the_ports_that_were_chosen_for_them() -> None:
    ports = {("algo-1", TORCH_PORT): 40001, ("algo-1", TENSORFLOW_PORT): 40002, ("algo-2", TENSORFLOW_PORT): 40003}
    network = Network("127.64.0.1", {"algo-1": "127.64.0.1", "algo-2": "127.64.0.2"}, ports)
    config = json.loads(with_tf_config(resources("algo-1", 2), network=network).variables["TF_CONFIG"])
    assert config["cluster"]["worker"] == ["127.64.0.1:40002", "127.64.0.2:40003"]
    assert "--master-addr 127.64.0.1 --master-port 40001" in " ".join(
        torchrun(resources("algo-2", 2), 1, network=network).command
    )


def test_gpus_are_those_that_cuda_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-1)'\necho 'GPU 1: H200 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_count() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_count() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.unlink()
    assert gpu_count() == 0
