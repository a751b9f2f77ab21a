"""Users' scripts on a Dask cluster. The hosts of the job are processes with different loopback addresses."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from dask.system import CPU_COUNT

from microjobs.contract import Layout, write_job_certificate
from microjobs.processes import find_children, signal_group
from microjobs_orchestrator.local.certificates import make_certificate
from tests.conftest import REPOSITORY
from tests.unit.hosts import End, Host, Hosts, make_hosts

HOST_PROGRAM = """
import json, logging, signal, sys
from microjobs import dask_script, heartbeat
from microjobs.contract import Layout, ResourceConfig, write_processing_resource_config
from microjobs.errors import JobError, Stopped
settings = json.loads(sys.argv[1])
for name, value in settings["time_limits"].items():
    setattr(dask_script if name == "JOIN_SECONDS" else heartbeat, name, value)
resources = ResourceConfig(settings["host"], tuple(settings["hosts"]))
write_processing_resource_config(Layout.from_environment(), resources)
try:
    dask_script.run(settings["command"])
except JobError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
except Stopped as stopped:
    print("stopped by", stopped.signal_number, flush=True)
"""

CONNECT_CODE = "from dask.distributed import Client\nclient = Client()\n"
PRINT_WORKERS_AND_SUM_CODE = """
import os
names = client.run(lambda dask_worker: dask_worker.name)
print("workers", sorted({name.split("/")[0] for name in names.values()}), flush=True)
print("sum", client.submit(sum, client.map(lambda n: n * n, range(100))).result(), flush=True)
"""

WAIT_CODE = "\nimport time\nprint('ready', flush=True)\ntime.sleep(60)\n"
MAX_JOB_SECONDS = 60

CHECK_CONNECTIONS_PROGRAM = """
import asyncio, json, logging, sys
import dask
from distributed import Security, rpc

async def connects(address, files):
    options = {}
    if files:
        certificate, key = files
        security = Security(
            require_encryption=True, tls_ca_file=certificate, tls_client_cert=certificate, tls_client_key=key
        )
        options = {"connection_args": security.get_connection_args("client")}
    try:
        async with rpc(("tls://" if files else "tcp://") + address, **options) as server:
            return bool(await server.identity())
    except OSError:
        return False

async def main():
    *addresses, certificate_files = sys.argv[1:]
    print(json.dumps({address: [await connects(address, files) for files in json.loads(certificate_files)]
        for address in addresses}))

dask.config.set({"distributed.comm.timeouts.connect": "2s"})
asyncio.run(main())
"""


class DaskHosts:
    """Starts the hosts of a job that runs a user's script with Dask.

    `time_limits` replace constants of the modules `dask_script` and `heartbeat`, such as LOST_SECONDS.
    """

    def __init__(self, hosts: Hosts, script: Path) -> None:
        self.names, self.script = hosts.names, script
        self._hosts = hosts
        certificate = make_certificate("test")
        for name in hosts.names:
            write_job_certificate(self.layout(name), *certificate)

    def layout(self, name: str) -> Layout:
        return Layout(self._hosts.folder / name)

    def start(self, name: str, code: str, **time_limits: float) -> Host:
        self.script.write_text(code)
        return self.start_command(name, [sys.executable, str(self.script)], **time_limits)

    def start_command(self, name: str, command: list[str], **time_limits: float) -> Host:
        return self._hosts.start_program(name, time_limits, command=command)

    def start_all(self, code: str, **time_limits: float) -> None:
        """Start all hosts, and wait until the script has printed `ready`."""
        for name in self.names:
            self.start(name, code, **time_limits)
        self._hosts.by_name["algo-1"].wait_for("ready")

    def host(self, name: str) -> Host:
        return self._hosts.by_name[name]

    def remove_secrets(self) -> None:
        self._hosts.secret = ""
        for name in self.names:
            shutil.rmtree(self.layout(name).job_secret.parent)

    def list_dask_process_ids(self, name: str) -> list[int]:
        """Return the IDs of Dask's processes on a host: first the scheduler, if the host has one, then the workers."""
        (program_id,) = find_children(self.host(name).process.pid)
        return sorted(find_children(program_id))

    def run(self, code: str, **time_limits: float) -> Mapping[str, End]:
        for name in self.names:
            self.start(name, code, **time_limits)
        return self._hosts.wait_for_end()

    def wait_for_end(self) -> Mapping[str, End]:
        return self._hosts.wait_for_end()

    def close(self) -> None:
        """Kill the programs of all hosts and the processes that they started, as a supervisor would do."""
        for host in self._hosts.by_name.values():
            for group_id in (*find_children(host.process.pid), *host.orphans):
                signal_group(group_id, signal.SIGKILL)


def make_dask_hosts(count: int, folder: Path) -> Iterator[DaskHosts]:
    with (
        contextlib.contextmanager(make_hosts)(count, ("-c", HOST_PROGRAM)) as job_hosts,
        contextlib.closing(DaskHosts(job_hosts, folder / "script.py")) as hosts,
    ):
        yield hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[DaskHosts]:
    yield from make_dask_hosts(2, tmp_path)


@pytest.fixture
def one_host(tmp_path: Path) -> Iterator[DaskHosts]:
    yield from make_dask_hosts(1, tmp_path)


@pytest.mark.slow
def test_script_can_use_all_hosts_and_its_modules_and_can_end_the_cluster(hosts: DaskHosts) -> None:
    """`Client()` without arguments connects to the cluster, and tasks import modules of the script's folder."""
    hosts.script.with_name("beside.py").write_text("def double(n):\n    return 2 * n\n")
    use_module_code = "import beside\nprint(client.gather(client.map(beside.double, range(8))))\n"
    end_cluster_code = "import time\nclient.shutdown()\ntime.sleep(1)\nprint('done')"
    ends = hosts.run(CONNECT_CODE + PRINT_WORKERS_AND_SUM_CODE + use_module_code + end_cluster_code)
    assert {end.exit_code for end in ends.values()} == {0}, ends
    output = ends["algo-1"].output
    assert "workers ['algo-1', 'algo-2']\nsum 328350\n[0, 2, 4, 6, 8, 10, 12, 14]\n" in output
    assert "done\n" in output
    assert "workers" not in ends["algo-2"].output


@pytest.mark.slow
def test_documented_script_runs_on_the_cluster_of_one_host(one_host: DaskHosts) -> None:
    page = (REPOSITORY / "docs" / "using" / "dask.md").read_text()
    (script,) = re.findall(r"```python\n# total.py\n(.*?)```", page, re.DOTALL)
    ends = one_host.run(script + PRINT_WORKERS_AND_SUM_CODE + "print(client.scheduler.address.split(':')[0])")
    total = sum(number**2 for number in range(1000))
    assert f"{total}\nworkers ['algo-1']\nsum 328350\ntls\n" in ends["algo-1"].output
    assert ends["algo-1"].exit_code == 0


def test_command_that_does_not_exist_is_named(one_host: DaskHosts) -> None:
    end = one_host.start_command("algo-1", ["pyton3", "script.py"]).wait_for_end()
    assert end.exit_code == 2
    assert "host algo-1 failed: cannot run 'pyton3': No such file or directory" in end.output


def test_failing_script_is_the_reason_on_all_hosts(hosts: DaskHosts) -> None:
    ends = hosts.run(CONNECT_CODE + "client.submit(lambda: 1 / 0).result()")
    assert {end.exit_code for end in ends.values()} == {1}
    reason = "JobError host algo-1 failed: script.py failed: ZeroDivisionError: division by zero (exit code 1)"
    assert all(reason in end.output for end in ends.values()), ends


@pytest.mark.parametrize("host", ["algo-1", "algo-2"])
def test_killed_worker_ends_the_job(host: str, hosts: DaskHosts) -> None:
    hosts.start_all(CONNECT_CODE + WAIT_CODE)
    os.kill(hosts.list_dask_process_ids(host)[1 if host == "algo-1" else 0], signal.SIGKILL)
    start_time = time.monotonic()
    ends = hosts.wait_for_end()
    assert time.monotonic() - start_time < MAX_JOB_SECONDS / 3
    assert {end.exit_code for end in ends.values()} == {3}
    reason = f"PlatformError host {host} failed: Dask worker 1 of {CPU_COUNT} was ended by SIGKILL, most likely out of"
    assert all(reason in end.output for end in ends.values()), ends


@pytest.mark.parametrize(("victim", "number"), [("algo-1", signal.SIGKILL), ("algo-2", signal.SIGSTOP)])
@pytest.mark.slow
def test_lost_or_frozen_host_ends_the_other_host(victim: str, number: signal.Signals, hosts: DaskHosts) -> None:
    """One signal per host is sufficient, because `test_distributed` tests both signals on both hosts."""
    hosts.start_all(CONNECT_CODE + WAIT_CODE, LOST_SECONDS=2 if number == signal.SIGSTOP else 20)
    hosts.host(victim).signal(number)
    start_time = time.monotonic()
    (end,) = (hosts.host(name).wait_for_end() for name in hosts.names if name != victim)
    assert time.monotonic() - start_time < MAX_JOB_SECONDS / 3
    assert (end.exit_code, f"PlatformError lost host {victim}: " in end.output) == (3, True), end


def test_script_can_use_the_cluster_after_a_stop_signal(hosts: DaskHosts) -> None:
    code = """
import signal, sys
def save(*_):
    print("saved", client.submit(sum, range(5)).result(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, save)
"""
    hosts.start_all(CONNECT_CODE + code + WAIT_CODE)
    hosts.host("algo-2").signal(signal.SIGTERM)
    ends = hosts.wait_for_end()
    assert {end.exit_code for end in ends.values()} == {0}, ends
    assert "saved 10\n" in ends["algo-1"].output


def test_script_that_ends_at_a_stop_signal_counts_as_stopped(hosts: DaskHosts) -> None:
    hosts.start_all(WAIT_CODE)
    hosts.host("algo-1").signal(signal.SIGTERM)
    assert all("stopped by 15\n" in end.output for end in hosts.wait_for_end().values())


@pytest.mark.slow
def test_task_that_still_runs_does_not_delay_the_end(hosts: DaskHosts) -> None:
    code = "import time\nfutures = client.map(time.sleep, [300.0 + n for n in range(20)])\ntime.sleep(1)\n"
    ends = hosts.run(CONNECT_CODE + code)
    assert {end.exit_code for end in ends.values()} == {0}, ends
    assert max(end.seconds for end in ends.values()) < MAX_JOB_SECONDS


def test_only_holders_of_the_certificate_can_connect(hosts: DaskHosts, tmp_path: Path) -> None:
    """Another program connects to the scheduler and to all workers with the job's certificate. It cannot connect with
    another certificate of the same name, or without TLS."""
    address_file = tmp_path / "addresses"
    list_servers_code = f"""
urls = [client.scheduler.address, *client.scheduler_info(n_workers=-1)["workers"]]
open({str(address_file)!r}, "w").write(",".join(url.partition("://")[2] for url in urls))
"""
    hosts.start_all(CONNECT_CODE + list_servers_code + WAIT_CODE)
    own_layout = hosts.layout("algo-2")
    other_layout = Layout(tmp_path / "other")
    write_job_certificate(other_layout, *make_certificate("test"))
    addresses = address_file.read_text().split(",")
    assert len(addresses) == 1 + 2 * CPU_COUNT
    command = [sys.executable, "-c", CHECK_CONNECTIONS_PROGRAM, *addresses]
    files = [[str(layout.job_certificate), str(layout.job_key)] for layout in (own_layout, other_layout)]
    answers = json.loads(subprocess.check_output([*command, json.dumps([*files, None])]))
    assert answers == {address: [True, False, False] for address in addresses}


def test_hosts_with_a_secret_need_a_certificate(hosts: DaskHosts) -> None:
    hosts.layout("algo-1").job_key.unlink()
    end = hosts.start("algo-1", CONNECT_CODE).wait_for_end()
    assert end.exit_code == 2
    assert "key.pem does not exist: give every host of the job the same certificate" in end.output


def test_hosts_without_secret_and_certificate_work_together(hosts: DaskHosts) -> None:
    """On AWS, jobs have no secret and no certificate."""
    hosts.remove_secrets()
    ends = hosts.run(CONNECT_CODE + PRINT_WORKERS_AND_SUM_CODE + "print(client.scheduler.address.split(':')[0])")
    assert "sum 328350\ntcp\n" in ends["algo-1"].output
    assert {end.exit_code for end in ends.values()} == {0}
