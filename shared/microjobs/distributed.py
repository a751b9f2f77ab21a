"""Training on several hosts, or in several processes of one host.

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
from microjobs.heartbeat import JOIN_SECONDS, Watch
from microjobs.interpreter import python_command
from microjobs.network import TENSORFLOW_PORT, TORCH_PORT, Network
from microjobs.processes import children_of, signal_group
from microjobs.stopping import StopRequest, stop_request
from microjobs.worker import REPORT_VARIABLE, is_worker

ExplainExit = Callable[[int], tuple[int, str]]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger("microjobs")


@dataclass(frozen=True)
class Program:
    """The program that a host starts.

    agent: whether the program starts the workers, like torchrun, and is not a worker itself.
    grace: seconds between SIGTERM and SIGKILL if the job ends because of another host.
    """

    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    agent: bool = False
    grace: float = 0.0
    cwd: Path | None = None
    stderr: IO[bytes] | int | None = None


WORKER = python_command("-m", "microjobs.run", "train")
"""Command of a worker, which runs the same job as this process."""

NVIDIA_FOLDERS = "/usr/bin:/usr/local/nvidia/bin"
"""Folders in which container toolkits install `nvidia-smi`; the user's PATH may not contain them."""


def must_launch(resources: ResourceConfig, processes: int = 1) -> bool:
    """Return whether this process must start workers instead of training itself."""
    return not is_worker() and (len(resources.hosts) > 1 or processes > 1)


def make_torchrun_program(
    resources: ResourceConfig, processes: int, arguments: Sequence[str] = ("--no-python", *WORKER)
) -> Program:
    """Return torchrun with `processes` workers per host. It sets `RANK`, `WORLD_SIZE` and similar variables."""
    network, first = Network.read(), resources.first_host
    command = [
        *python_command("-m", "torch.distributed.run"),  # isolated from modules in the user's folder
        *("--nnodes", str(len(resources.hosts)), "--node-rank", str(resources.rank)),
        *("--nproc-per-node", str(processes)),
        *("--master-addr", network.resolve(first), "--master-port", str(network.port(first, TORCH_PORT))),
        *arguments,
    ]
    interface = _find_interface(resources, network)
    variables = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
    # If OMP_NUM_THREADS is not set and torchrun starts several processes, torchrun sets it to 1 and logs a warning.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes))
    return Program(command, variables | ({"OMP_NUM_THREADS": threads} if processes > 1 else {}), agent=True)


def make_tf_program(resources: ResourceConfig, command: Sequence[str] = WORKER) -> Program:
    """Return a program with TensorFlow's description of the cluster, in which every host is a worker."""
    network = Network.read()
    workers = [f"{network.resolve(host)}:{network.port(host, TENSORFLOW_PORT)}" for host in resources.hosts]
    task = {"type": "worker", "index": resources.rank}
    config = {"cluster": {"worker": workers}, "task": task, "environment": "cloud"}
    return Program(command, {"TF_CONFIG": json.dumps(config)})


def _find_interface(resources: ResourceConfig, network: Network) -> str | None:
    """Return the network interface for frameworks; None if they should choose it."""
    name = "lo" if network.hosts else resources.network_interface
    return name if name in {interface for _, interface in socket.if_nameindex()} else None


def count_gpus() -> int:
    """Return the number of GPUs that CUDA may use, from CUDA_VISIBLE_DEVICES or nvidia-smi, without a framework."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), NVIDIA_FOLDERS])
    try:
        program = shutil.which("nvidia-smi", path=path) or "nvidia-smi"
        listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def launch(
    program: Program,
    resources: ResourceConfig,
    *,
    explain: ExplainExit | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    join_seconds: float = JOIN_SECONDS,
) -> None:
    """Run the program on this host, while the other hosts run theirs. All hosts end in the same way.

    Args:
        explain: for a program that sends no reports: takes the exit code of the process, and returns the exit code of
            the script and the reason. The exit codes may differ if an agent runs the script.
        on_start: called with the process when it has started.
        join_seconds: time for which hosts wait for each other.

    Raises:
        JobError: the reason why the job failed, the same on every host, with the name of the host that failed.
        Stopped: a host received a stop signal before all hosts could save their work.
    """
    with stop_request() as stop, Watch(resources, Network.read()) as watch:
        watch.join(join_seconds, lambda: not stop)
        if watch.verdict is None and stop.signal_number is not None:
            watch.end(Ending(resources.current_host, 128 + stop.signal_number))
        if watch.verdict is None:
            with contextlib.closing(_Workers(program, resources.current_host, explain)) as workers:
                on_start(workers.process)
                # Workers stay until all hosts are done, because other workers may still read from them.
                watch.end(_follow(workers, watch, stop))
    if watch.verdict is not None:
        watch.verdict.raise_error()


def _follow(workers: "_Workers", watch: Watch, stop: StopRequest) -> Ending:
    """Wait for a verdict or the end of this host's workers, and return it."""
    watch.wake_for(workers.reports)
    while (ending := watch.verdict or workers.poll_ending(watch.stop_signal)) is None:
        watch.step(0.1)
        if stop.signal_number is not None:
            watch.stop(stop.signal_number)
        if watch.stop_signal is not None:
            workers.stop(watch.stop_signal)
    return ending


class _Workers:
    """The processes of the program on this host, and their reports."""

    def __init__(self, program: Program, host: str, explain: ExplainExit | None) -> None:
        self._program, self._host, self._explain = program, host, explain
        self.reports, self._write_end = os.pipe()
        os.set_blocking(self.reports, False)
        self._report_buffer = b""
        self._signalled: set[int] = set()
        # This process keeps the writing end open, so that reading never reaches the end of the pipe. Workers open it by
        # its path, because torchrun closes inherited descriptors.
        pipe = f"/proc/{os.getpid()}/fd/{self._write_end}"
        environment = {**os.environ, **program.variables, REPORT_VARIABLE: pipe}
        # Workers unblock stop signals when they can handle them. Scripts do not, so they start with unblocked signals.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS if explain is None else ())
        try:
            self.process = subprocess.Popen(
                list(program.command),
                start_new_session=True,  # `stop` sends stop signals, once per worker
                cwd=program.cwd,
                stderr=program.stderr,
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)

    def poll_ending(self, stop_signal: int | None) -> Ending | None:
        """Return how the program ended; None while it runs.

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
        return endings.from_exit_code(self._host, code, by_agent=self._program.agent)

    def _read_report(self) -> tuple[int, str] | None:
        """Return the first report of a worker: its exit code and the reason."""
        with contextlib.suppress(BlockingIOError):
            self._report_buffer += os.read(self.reports, 1 << 16)
        if b"\n" not in self._report_buffer:
            return None
        code, reason = json.loads(self._report_buffer.partition(b"\n")[0])
        return int(code), str(reason)

    def stop(self, number: int) -> None:
        """Send a stop signal to each worker, once. Kill an agent without workers, which has nothing to save."""
        workers = children_of(self.process.pid) if self._program.agent else [self.process.pid]
        if not workers and not self._signalled:
            self.kill()
        for pid in set(workers) - self._signalled:
            self._signalled.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill the program and its workers. The supervisor ends workers that outlive their agent."""
        if self.process.poll() is not None:
            return
        workers = children_of(self.process.pid) if self._program.agent else []
        if self._program.grace:
            for pid in [*workers, self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self._program.grace)
        for pid in [self.process.pid, *workers]:  # the agent first, so that it does not report the end of its workers
            signal_group(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for descriptor in (self.reports, self._write_end):
            os.close(descriptor)
