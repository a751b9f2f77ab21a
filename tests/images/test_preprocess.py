"""The image `preprocess` on several hosts. Each host has a part of the files."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from docker.errors import APIError
from docker.models.containers import Container
from numpy.typing import NDArray
from testcontainers.core.network import Network

from microjobs.contract import Layout, ResourceConfig, write_processing_resource_config
from microjobs.scaler import read_scaler
from tests.images.conftest import EndedJob, Job, RunJob, StartJob

pytestmark = pytest.mark.engine

HOSTS = tuple(f"algo-{number}" for number in range(1, 5))
Arrays = dict[str, NDArray[np.float64]]


@pytest.fixture
def arrays() -> Arrays:
    random = np.random.default_rng(1)
    return {
        "x_test": random.normal(1e4, 3, (50, 13)),
        "x_train": random.normal(1e4, 3, (200, 13)),
        "y_test": random.normal(size=50),
        "y_train": random.normal(size=200),
    }


StartHosts = Callable[[Mapping[str, Mapping[str, NDArray[np.float64]]]], dict[str, Job]]


@pytest.fixture
def start_hosts(network: Network, start_job: StartJob, tmp_path: Path) -> StartHosts:
    """A function that starts one host per entry, with its files. The resource configuration has all four hosts."""

    def start(shares: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, Job]:
        jobs = {}
        for host, files in shares.items():
            layout = Layout(tmp_path / host)
            layout.processing("input").mkdir(parents=True)
            for name, array in files.items():
                save(layout.processing("input") / f"{name}.npy", array)
            write_processing_resource_config(layout, ResourceConfig(host, HOSTS))
            jobs[host] = start_job("preprocess", [], layout.root, hostname=host, network=network)
        return jobs

    return start


def assign_one_file_per_host(arrays: Arrays) -> dict[str, Arrays]:
    """Return the files of each host, like ShardedByS3Key: three hosts have no x_train.npy."""
    return {host: {name: arrays[name]} for host, name in zip(HOSTS, sorted(arrays), strict=True)}


def find_output_files(runs: Mapping[str, EndedJob]) -> dict[str, Path]:
    """Return the output files by name. Two hosts must not write the same name: S3 would keep only one of the files."""
    paths = [path for run in runs.values() for path in run.layout.root.glob("processing/t*/*")]
    assert len({path.name for path in paths}) == len(paths)
    return {path.name: path for path in paths}


def wait(jobs: Mapping[str, Job]) -> dict[str, EndedJob]:
    return {host: job.wait(timeout=90) for host, job in jobs.items()}


def test_four_hosts_with_one_file_each_write_the_same_output_as_one_host(
    arrays: Arrays, start_hosts: StartHosts, run_job: RunJob, root: Path
) -> None:
    runs = wait(start_hosts(assign_one_file_per_host(arrays)))
    assert {run.exit_code for run in runs.values()} == {0}, [run.log for run in runs.values()]
    assert [line for run in runs.values() for line in run.warnings()] == []
    files = find_output_files(runs)

    layout = Layout(root)
    layout.processing("input").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(layout.processing("input") / f"{name}.npy", array)
    run_job("preprocess", [], root)
    for path in root.glob("processing/t*/*.npy"):
        np.testing.assert_allclose(np.load(files[path.name]), np.load(path), rtol=1e-12)
    one_host_scaler, four_host_scaler = (
        read_scaler(layout.processing("train")),
        read_scaler(files["scaler.json"].parent),
    )
    assert one_host_scaler is not None
    assert four_host_scaler is not None
    np.testing.assert_allclose(four_host_scaler.mean, one_host_scaler.mean, rtol=1e-12)
    np.testing.assert_allclose(four_host_scaler.scale, one_host_scaler.scale, rtol=1e-12)


def test_shards_on_all_hosts_have_one_scaler(arrays: Arrays, start_hosts: StartHosts) -> None:
    shares: dict[str, Arrays] = {host: {} for host in HOSTS}
    for name in ("x_train", "y_train"):
        for number, part in enumerate(np.array_split(arrays[name], 4)):
            shares[HOSTS[number]][f"{name}-{number:05}-of-00004"] = part
    runs = wait(start_hosts(shares))
    scaler = read_scaler(find_output_files(runs)["scaler.json"].parent)
    assert scaler is not None
    np.testing.assert_allclose(scaler.mean, arrays["x_train"].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, arrays["x_train"].std(axis=0), rtol=1e-12)


def test_replicated_input_is_written_once(arrays: Arrays, start_hosts: StartHosts) -> None:
    runs = wait(start_hosts(dict.fromkeys(HOSTS, arrays)))
    assert {run.exit_code for run in runs.values()} == {0}
    assert sorted(find_output_files(runs)) == ["scaler.json", "x_test.npy", "x_train.npy", "y_test.npy", "y_train.npy"]


def test_invalid_row_on_one_host_is_the_error_of_all_hosts(arrays: Arrays, start_hosts: StartHosts) -> None:
    arrays["x_test"][7, 3] = np.nan
    runs = wait(start_hosts(assign_one_file_per_host(arrays)))
    assert {run.exit_code for run in runs.values()} == {2}
    assert all(run.failure and run.failure.startswith("x_test.npy row 7 contains nan") for run in runs.values())
    assert find_output_files(runs) == {}


def test_missing_host_fails_the_job_within_a_minute(arrays: Arrays, start_hosts: StartHosts) -> None:
    shares = assign_one_file_per_host(arrays)
    del shares["algo-3"]
    start = time.monotonic()
    runs = wait(start_hosts(shares))
    assert time.monotonic() - start < 60
    assert {run.exit_code for run in runs.values()} == {3}
    assert all(run.failure and "host algo-3 did not join" in run.failure for run in runs.values())


def test_missing_first_host_fails_the_job_within_a_minute(arrays: Arrays, start_hosts: StartHosts) -> None:
    shares = assign_one_file_per_host(arrays)
    del shares["algo-1"]
    start = time.monotonic()
    runs = wait(start_hosts(shares))
    assert time.monotonic() - start < 60
    assert {run.exit_code for run in runs.values()} == {3}
    assert all(run.failure and "host algo-1, the first of the job" in run.failure for run in runs.values())


@pytest.mark.parametrize("victim", ["algo-1", "algo-4"])
def test_killed_host_fails_the_job_on_the_other_hosts(victim: str, arrays: Arrays, start_hosts: StartHosts) -> None:
    jobs = start_hosts(assign_one_file_per_host(arrays | make_long_training_data()))
    jobs["algo-1"].wait_for_log("algo-4 has")  # all hosts have joined, and the data takes seconds to read
    jobs[victim].container.kill()
    start = time.monotonic()
    runs = wait({host: job for host, job in jobs.items() if host != victim})
    assert time.monotonic() - start < 60
    assert {run.exit_code for run in runs.values()} == {3}
    assert all(run.failure and f"lost host {victim}" in run.failure for run in runs.values())


def test_frozen_host_fails_the_job_within_a_minute(arrays: Arrays, start_hosts: StartHosts) -> None:
    jobs = start_hosts(assign_one_file_per_host(arrays | make_long_training_data()))
    jobs["algo-1"].wait_for_log("algo-4 has")
    pause(jobs["algo-2"].container)
    start = time.monotonic()
    runs = wait({host: job for host, job in jobs.items() if host != "algo-2"})
    assert time.monotonic() - start < 60
    assert all(run.failure and "lost host algo-2" in run.failure for run in runs.values())


def pause(container: Container) -> None:
    """Pause a container. On a busy machine, the kernel may not stop all its processes at the first attempts."""
    for _ in range(20):
        with suppress(APIError):
            container.pause()
            return
    container.pause()


def make_long_training_data(rows: int = 30_000_000) -> Arrays:
    """Return arrays of zeros. Their sparse files need no disk space, but reading them takes seconds."""
    return {"x_train": np.broadcast_to(0.0, (rows, 13)), "y_train": np.broadcast_to(0.0, rows)}


def save(path: Path, array: NDArray[np.float64]) -> None:
    """Save an array. The zeros of `make_long_training_data` become a sparse file."""
    if array.strides[0]:
        np.save(path, array)
    else:
        np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=array.shape).flush()
