"""Training on several hosts, or in several processes of one host. `launch` also runs the hosts of `with-dask`.

The entry point of each host waits for the other hosts, starts the workers (by torchrun, or one worker with
`TF_CONFIG`), and watches the workers and the other hosts. A worker runs the same job, and
`microjobs.worker.is_worker` returns True in a worker.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from microjobs import endings
from microjobs.contract import ResourceConfig
from microjobs.endings import Ending
from microjobs.errors import EXIT_OK
from microjobs.heartbeat import JOIN_SECONDS, HostHeartbeat
from microjobs.interpreter import make_python_command
from microjobs.network import TENSORFLOW_PORT, TORCH_PORT, Network
from microjobs.processes import find_children, signal_group
from microjobs.stopping import StopRequest, stop_request
from microjobs.worker import REPORT_VARIABLE, is_worker

ExplainExit = Callable[[int], tuple[int, str]]
"""Function that returns the exit code of a script and the reason of its failure, from the exit code of the process."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Program:
    """The program that a host starts.

    is_agent: whether the program starts the workers, like torchrun, and is not a worker itself.
    grace_seconds: seconds between SIGTERM and SIGKILL if the job ends because of another host.
    """

    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    is_agent: bool = False
    grace_seconds: float = 0.0
    cwd: Path | None = None
    stderr: IO[bytes] | int | None = None


WORKER_COMMAND = make_python_command("-m", "microjobs.run", "train")
"""Command of a worker, which runs the same job as this process."""

NVIDIA_FOLDERS = "/usr/bin:/usr/local/nvidia/bin"
"""Folders in which container toolkits install `nvidia-smi`; the user's PATH may not contain them."""


def must_launch(resources: ResourceConfig, workers_per_host: int = 1) -> bool:
    """Return whether this process must start workers instead of training itself."""
    return not is_worker() and (len(resources.hosts) > 1 or workers_per_host > 1)


def make_torchrun_program(
    resources: ResourceConfig, workers_per_host: int, arguments: Sequence[str] = ("--no-python", *WORKER_COMMAND)
) -> Program:
    """Return torchrun with `workers_per_host` workers on each host. It sets variables such as `RANK`."""
    network, first_host = Network.read(), resources.first_host
    command = [
        *make_python_command("-m", "torch.distributed.run"),  # torchrun must not import modules from the user's folder
        *("--nnodes", str(len(resources.hosts)), "--node-rank", str(resources.rank)),
        *("--nproc-per-node", str(workers_per_host)),
        *("--master-addr", network.resolve(first_host), "--master-port", str(network.port(first_host, TORCH_PORT))),
        *arguments,
    ]
    interface = _find_interface(resources, network)
    variables = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
    # If OMP_NUM_THREADS is not set and torchrun starts several processes, torchrun sets it to 1 and logs a warning.
    # Therefore, it is set to each worker's share of the cores.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers_per_host))
    return Program(command, variables | ({"OMP_NUM_THREADS": threads} if workers_per_host > 1 else {}), is_agent=True)


def make_tf_program(resources: ResourceConfig, command: Sequence[str] = WORKER_COMMAND) -> Program:
    """Return a program with TensorFlow's description of the cluster, in which every host is a worker."""
    network = Network.read()
    workers = [f"{network.resolve(host)}:{network.port(host, TENSORFLOW_PORT)}" for host in resources.hosts]
    task = {"type": "worker", "index": resources.rank}
    config = {"cluster": {"worker": workers}, "task": task, "environment": "cloud"}
    return Program(command, {"TF_CONFIG": json.dumps(config)})


def _find_interface(resources: ResourceConfig, network: Network) -> str | None:
    """Return the network interface for frameworks; None if they should choose it."""
    # if `network.host_addresses` is set, all hosts are processes on this machine
    name = "lo" if network.host_addresses else resources.network_interface
    return name if name in {interface for _, interface in socket.if_nameindex()} else None


def count_gpus() -> int:
    """Return the number of GPUs that CUDA may use, from CUDA_VISIBLE_DEVICES or nvidia-smi, without a framework."""
    if (devices := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([device for device in devices.split(",") if device.strip() not in ("", "-1")])
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), NVIDIA_FOLDERS])
    try:
        program = shutil.which("nvidia-smi", path=path) or "nvidia-smi"
        gpu_list = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in gpu_list.stdout.splitlines())


def launch(
    program: Program,
    resources: ResourceConfig,
    *,
    explain: ExplainExit | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    join_seconds: float = JOIN_SECONDS,
) -> None:
    """Run the program on this host, while the other hosts run their programs. All hosts end in the same way.

    Args:
        explain: function for programs that send no reports. The exit code of the process and the exit code of the
            script may differ if an agent runs the script.
        on_start: function that is called with the process when it has started.
        join_seconds: seconds for which hosts wait for each other at the start.

    Raises:
        JobError: the reason why the job failed, the same on every host, with the name of the host that failed.
        Stopped: a host received a stop signal before all hosts could save their work.
    """
    with stop_request() as stop, HostHeartbeat(resources, Network.read()) as heartbeat:
        heartbeat.join(join_seconds, lambda: not stop)
        if heartbeat.verdict is None and stop.signal_number is not None:
            heartbeat.end(Ending(resources.current_host, 128 + stop.signal_number))
        if heartbeat.verdict is None:
            with contextlib.closing(_Workers(program, resources.current_host, explain)) as workers:
                on_start(workers.process)
                # This host's workers run until all hosts have ended, because workers of other hosts may still read from
                # them.
                heartbeat.end(_wait_for_ending(workers, heartbeat, stop))
    if heartbeat.verdict is not None:
        heartbeat.verdict.raise_error()


def _wait_for_ending(workers: "_Workers", heartbeat: HostHeartbeat, stop: StopRequest) -> Ending:
    """Wait for a verdict or the end of this host's workers, and return the ending. Forward stop signals meanwhile."""
    heartbeat.wake_for(workers.read_end)
    while (ending := heartbeat.verdict or workers.poll_ending(heartbeat.stop_signal)) is None:
        heartbeat.step(seconds=0.1)
        if stop.signal_number is not None:
            heartbeat.stop(stop.signal_number)
        if heartbeat.stop_signal is not None:
            workers.stop(heartbeat.stop_signal)
    return ending


class _Workers:
    """The processes of the program on this host, and their reports."""

    def __init__(self, program: Program, host: str, explain: ExplainExit | None) -> None:
        self._program, self._host, self._explain = program, host, explain
        self.read_end, self._write_end = os.pipe()
        """File descriptors of the pipe for the reports of workers."""
        os.set_blocking(self.read_end, False)
        self._report_buffer = b""
        self._signalled_pids: set[int] = set()
        # This process keeps the writing end open, so that reading never reaches the end of the pipe. Workers open it by
        # its path, because torchrun closes inherited descriptors.
        pipe = f"/proc/{os.getpid()}/fd/{self._write_end}"
        environment = {**os.environ, **program.variables, REPORT_VARIABLE: pipe}
        # Workers unblock stop signals when they can handle them. Scripts, for which `explain` is set, never unblock
        # signals, so they start with unblocked signals.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS if explain is None else ())
        try:
            self.process = subprocess.Popen(
                list(program.command),
                start_new_session=True,  # workers get stop signals only from `stop`, once per worker
                cwd=program.cwd,
                stderr=program.stderr,
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)

    def poll_ending(self, stop_signal: int | None) -> Ending | None:
        """Return how the program ended, or what a worker reported; None while it runs without a report.

        Args:
            stop_signal: the stop signal that a host of the job received, if any.
        """
        code = self.process.poll()
        if (report := self._read_report()) is not None:
            return endings.from_report(self._host, *report)
        if code is None:
            return None
        if code == EXIT_OK:
            return Ending(self._host)
        if stop_signal is not None:
            return Ending(self._host, 128 + stop_signal)
        if self._explain is not None:
            return endings.from_script(self._host, *self._explain(code))
        return endings.from_exit_code(self._host, code, is_agent=self._program.is_agent)

    def _read_report(self) -> tuple[int, str] | None:
        """Return the first report of a worker: its exit code and the reason."""
        with contextlib.suppress(BlockingIOError):
            self._report_buffer += os.read(self.read_end, 1 << 16)
        if b"\n" not in self._report_buffer:
            return None
        code, reason = json.loads(self._report_buffer.partition(b"\n")[0])
        return int(code), str(reason)

    def stop(self, signal_number: int) -> None:
        """Send a stop signal to each worker, once. Kill an agent without workers, which has nothing to save."""
        workers = find_children(self.process.pid) if self._program.is_agent else [self.process.pid]
        if not workers and not self._signalled_pids:
            self.kill()
        for pid in set(workers) - self._signalled_pids:
            self._signalled_pids.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def kill(self) -> None:
        """End the program and its workers, with SIGKILL if the grace period is not sufficient or if there is none.

        The supervisor ends workers that outlive their agent.
        """
        if self.process.poll() is not None:
            return
        workers = find_children(self.process.pid) if self._program.is_agent else []
        if self._program.grace_seconds:
            for pid in [*workers, self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self._program.grace_seconds)
        # the agent is killed first, so that it does not report the end of its workers
        for pid in [self.process.pid, *workers]:
            signal_group(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for descriptor in (self.read_end, self._write_end):
            os.close(descriptor)
