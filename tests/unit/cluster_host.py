"""The program of one host of a processing job, and the functions that the tests call on all hosts."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from microjobs import dask_hosts, heartbeat
from microjobs.contract import ResourceConfig
from microjobs.errors import JobError, Stopped, UserError
from microjobs.files import atomic_group, atomic_write
from microjobs.hosts import Hosts, RegisterFile, run_on_hosts

PROGRAM = ("-c", f"from {__name__} import main; main()")


def coordinate(hosts: Hosts) -> None:
    """Call a function on each host for which there are arguments, and print all results.

    Only the first host runs `coordinate`. The argument of this program, a JSON object, names the function and contains
    its arguments.
    """
    settings = json.loads(sys.argv[1])
    arguments = {host: tuple(values) for host, values in settings["arguments"].items()}
    function = globals()[settings["call"]]
    results = (hosts.write if settings["call"].startswith("write_") else hosts.call)(function, arguments)
    if "then" in settings:  # the second call has the results of the first call
        results = hosts.call(globals()[settings["then"]], results)
    print("results", json.dumps(results, sort_keys=True), flush=True)


def repeat(text: str, times: int) -> tuple[str, int]:
    """Return the repeated text, and the ID of this process."""
    return text * times, os.getpid()


def measure_length(text: str, pid: int) -> tuple[int, bool]:
    """Return the length of the text, and whether `pid` is the ID of this process."""
    return len(text), pid == os.getpid()


def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)


def fail_while_writing(folder: str, fails: bool) -> None:
    """Raise an error on one host while all hosts are writing their second file."""
    path = Path(folder)
    with atomic_group() as register_file:
        with atomic_write(path / f"{os.getpid()}-1") as partial:
            partial.touch()
        register_file(path / f"{os.getpid()}-1")
        with atomic_write(path / f"{os.getpid()}-2") as partial:
            partial.touch()
            while fails and len(list(path.glob(".*-2.partial"))) < 3:
                time.sleep(0.01)
            if fails:
                raise UserError("row 5 is bad")
            time.sleep(60)


def write_and_fail(register_file: RegisterFile, folder: str, fails: bool) -> None:
    """Write a file. On one host, raise an error when the calls of the other hosts have ended."""
    path = Path(folder) / str(os.getpid())
    path.touch()
    register_file(path)
    while fails and len(list(path.parent.iterdir())) < 3:
        time.sleep(0.01)
    if fails:
        time.sleep(0.5)
        raise UserError("row 5 is bad")


def fail_with_long_message(fails: bool) -> None:
    if fails:
        raise UserError("row 5 is bad " + "\U0001d54f" * 100_000)
    time.sleep(60)


def fail_unexpectedly(fails: bool) -> None:
    if fails:
        raise ZeroDivisionError("unexpected")
    time.sleep(60)


def fill_the_disk(fails: bool) -> None:
    if fails:
        with atomic_write(Path("/dev/shm") / str(os.getpid())) as partial:
            partial.symlink_to("/dev/full")
            partial.write_text("x")
    time.sleep(60)


def drop_dask_connection() -> None:
    """Close the connection to Dask before the connection for heartbeats, as can happen when a host ends."""
    from distributed import Worker  # a host must import Dask with its own settings

    for worker in Worker._instances:
        worker.batched_stream.comm.abort()
    time.sleep(0.3)
    os._exit(9)


def stop(signal_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped(signal_number)


def main() -> None:
    settings = json.loads(sys.argv[1])
    for name, value in settings["time_limits"].items():
        setattr(dask_hosts if hasattr(dask_hosts, name) else heartbeat, name, value)
    signal.signal(signal.SIGTERM, stop)
    try:
        run_on_hosts(ResourceConfig(settings["host"], tuple(settings["hosts"])), coordinate)
    except JobError as error:
        print(type(error).__name__, error, flush=True)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        print("stopped by", stopped.signal_number, flush=True)
