"""Tests of the repository's jobs on the process runtime, in environments made from their lock files."""

import errno
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.contract import (
    Layout,
    ResourceConfig,
    read_failure,
    write_hyperparameters,
    write_processing_resource_config,
)
from microjobs.network import SOCKET_FOLDER, Network
from microjobs.scaler import read_scaler
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.models.client import Client, NoAnswerError
from microjobs_orchestrator.local.runtimes.base import Exit, Host, Input, Plan
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime
from tests.bundles import linear_bundle
from tests.conftest import CONTAINERS
from tests.local.clients import share_environments
from tests.local.machine import environments, listening_addresses
from tests.local.runtimes.processes import host_plan, names, output, wait_for_line
from tests.local.trees import copy_from_host
from tests.packages import make_wheel

ROOT = Layout()
INPUT, TRAIN, TEST = (str(ROOT.processing(name)) for name in ("input", "train", "test"))
HOSTS = tuple(f"algo-{number}" for number in range(1, 5))
Arrays = Mapping[str, NDArray[np.float64]]

RANDOM = np.random.default_rng(1)
ARRAYS: Arrays = {
    "x_test": RANDOM.normal(1, 2, (50, 13)),
    "x_train": RANDOM.normal(1, 2, (200, 13)),
    "y_test": RANDOM.normal(size=50),
    "y_train": RANDOM.normal(size=200),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home that all tests share."""
    home = Home(tmp_path_factory.mktemp("home"))
    share_environments(home)
    return home


@pytest.fixture
def runtime(home: Home) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime(home, CONTAINERS)
    yield runtime
    runtime.close()
    for folder in (home.work / "process").iterdir():
        runtime.remove(folder.name)


def save_arrays(folder: Path, path: str, content: Arrays) -> Input:
    folder.mkdir(parents=True)
    for name, array in content.items():
        np.save(folder / f"{name}.npy", array)
    return Input(path, folder)


def channels(folder: Path) -> Sequence[Input]:
    """Return the two channels of a trainer."""
    return [
        save_arrays(
            folder / split, str(ROOT.channel(split)), {name: ARRAYS[name] for name in (f"x_{split}", f"y_{split}")}
        )
        for split in ("train", "test")
    ]


def trainer(runtime: ProcessRuntime, folder: Path, *, job: str = "train-tensorflow", **hyperparameters: object) -> Host:
    def write(layout: Layout) -> None:
        write_hyperparameters(layout, {"learning_rate": 0.001, **hyperparameters})

    inputs = tuple(channels(folder / "inputs"))
    plan = host_plan(folder, job, write=write, inputs=inputs, arguments=("train",))
    return runtime.start(Plan("training-job/job", (plan,)))[0]


def four_hosts(folder: Path, content: Arrays = ARRAYS) -> Plan:
    """Return a plan with one file per host, as ShardedByS3Key distributes four files."""

    def write(name: str) -> Callable[[Layout], None]:
        return lambda layout: write_processing_resource_config(layout, ResourceConfig(name, HOSTS))

    shares = zip(HOSTS, content.items(), strict=True)
    inputs = {host: save_arrays(folder / "inputs" / host, INPUT, dict([share])) for host, share in shares}
    hosts = (host_plan(folder, "preprocess", name=name, write=write(name), inputs=(inputs[name],)) for name in HOSTS)
    return Plan("processing-job/four-hosts", tuple(hosts))


def test_preprocessing_runs_on_one_host(runtime: ProcessRuntime, tmp_path: Path) -> None:
    plan = host_plan(tmp_path, "preprocess", inputs=(save_arrays(tmp_path / "input", INPUT, ARRAYS),))
    (host,) = runtime.start(Plan("processing-job/one-host", (plan,)))
    assert host.wait() == Exit(0), output(host)
    assert copy_from_host(host, TRAIN, tmp_path / "train")
    np.testing.assert_allclose(np.load(tmp_path / "train" / "x_train.npy").mean(axis=0), np.zeros(13), atol=1e-5)
    assert "scaled 13 features with the statistics of 200 training rows" in output(host)


def test_installed_packages_are_not_visible_to_other_jobs(runtime: ProcessRuntime, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    wheel = make_wheel(folder)
    code = Input(str(ROOT.processing("code")), folder)
    script = f"pip install --no-index {ROOT.processing('code') / wheel.name} && python3 -c 'import tiny, numpy'"
    plan = host_plan(tmp_path, "preprocess", inputs=(code,), entrypoint=("bash", "-c"), arguments=(script,))
    (host,) = runtime.start(Plan("processing-job/installs", (plan,)))
    assert host.wait() == Exit(0), output(host)
    other = host_plan(tmp_path / "other", "preprocess", entrypoint=("python3", "-c"), arguments=("import tiny",))
    (host,) = runtime.start(Plan("processing-job/other", (other,)))
    assert host.wait() == Exit(1)
    assert "No module named 'tiny'" in output(host)


def test_preprocessing_runs_on_four_hosts(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hosts = runtime.start(four_hosts(tmp_path))
    assert [host.wait() for host in hosts] == [Exit(0)] * 4, [output(host) for host in hosts]
    for host in hosts:
        for folder in (TRAIN, TEST):
            copy_from_host(host, folder, tmp_path / "out")
    assert names((tmp_path / "out").glob("*.npy")) == {f"{name}.npy" for name in ARRAYS}
    scaler = read_scaler(tmp_path / "out")
    assert scaler is not None
    np.testing.assert_allclose(scaler.mean, ARRAYS["x_train"].mean(axis=0))


def test_lost_host_ends_all_other_hosts(runtime: ProcessRuntime, tmp_path: Path) -> None:
    long_arrays = {
        "x_train": np.broadcast_to(1.0, (3_000_000, 13)),
        "y_train": np.zeros(3_000_000),
    }  # takes seconds to read
    hosts = runtime.start(four_hosts(tmp_path, {**ARRAYS, **long_arrays}))
    wait_for_line(hosts[0], b"algo-4 has")
    hosts[3].stop(0)
    assert {host.wait().code for host in hosts[:3]} == {3}
    assert all("lost host algo-4" in output(host) for host in hosts[:3])


@pytest.mark.parametrize(
    ("job", "own_format"),
    [("train-tensorflow", "1"), pytest.param("train-pytorch", "model.pth", marks=pytest.mark.pytorch)],
)
def test_trainer_makes_a_model(job: str, own_format: str, runtime: ProcessRuntime, tmp_path: Path) -> None:
    host = trainer(runtime, tmp_path, job=job, epochs=3)
    assert host.wait() == Exit(0), output(host)
    assert copy_from_host(host, str(ROOT.model), tmp_path / "model")
    assert names((tmp_path / "model").iterdir()) >= {"model.onnx", own_format, "manifest.json"}


def test_stopped_trainer_keeps_its_model(runtime: ProcessRuntime, tmp_path: Path) -> None:
    host = trainer(runtime, tmp_path, epochs=1_000_000)
    wait_for_line(host, b"Epoch 2/")
    host.stop(120)
    assert host.wait() == Exit(0), output(host)
    assert "the model is saved" in output(host)
    assert copy_from_host(host, str(ROOT.model), tmp_path / "model")
    assert (tmp_path / "model" / "manifest.json").exists()


def test_script_mode_fails_with_a_reason(runtime: ProcessRuntime, tmp_path: Path) -> None:
    host = trainer(runtime, tmp_path, sagemaker_program="train.py")
    assert host.wait().code == 2
    copy_from_host(host, str(ROOT.output), tmp_path / "output")
    assert "'train.py': this image has no script mode" in (read_failure(Layout(tmp_path)) or "")


def endpoint(runtime: ProcessRuntime, folder: Path, name: str, weight: float) -> Host:
    plan = host_plan(
        folder / name,
        "serve",
        write=lambda layout: linear_bundle(layout.model, [weight], 0.5),
        arguments=("serve",),
        port=8080,
    )
    return runtime.start(Plan(f"endpoint/{name}", (plan,)))[0]


def request(host: Host, path: str, body: bytes | None = None) -> bytes:
    answered = io.BytesIO()
    with closing(Client(host.connect)) as client:
        method, headers = ("GET" if body is None else "POST"), {"Content-Type": "application/json"}
        client.request(method, path, body, headers, timeout=10, into=answered)
    return answered.getvalue()


def wait_for_ping(host: Host) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            request(host, "/ping")
        except NoAnswerError:
            assert time.monotonic() < deadline, output(host)
            time.sleep(0.05)
        else:
            return


def test_two_endpoints_serve_at_once_and_exit_with_zero(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hosts = [endpoint(runtime, tmp_path, name, weight) for name, weight in (("one", 1.0), ("two", 2.0))]
    for host, prediction in zip(hosts, (3.5, 6.5), strict=True):
        wait_for_ping(host)
        answer = json.loads(request(host, "/invocations", b'{"instances": [[3.0]]}'))
        assert np.ravel(answer["predictions"]).tolist() == [prediction]
    for host in hosts:
        host.stop(30)
        assert host.wait() == Exit(0), output(host)


def test_other_users_cannot_connect_to_an_endpoint(runtime: ProcessRuntime, home: Home, tmp_path: Path) -> None:
    """Requests to the socket need no signature."""
    host = endpoint(runtime, tmp_path, "one", 1.0)
    wait_for_ping(host)
    folders = {environ.get(SOCKET_FOLDER) for environ in environments(str(home.root)).values()} - {None}
    (path,) = (Network.socket_in(str(folder)) for folder in folders)
    assert path.is_socket()
    assert (path.parent.stat().st_mode & 0o777, path.parent.stat().st_uid) == (0o700, os.getuid())
    assert not listening_addresses(f"{SOCKET_FOLDER}={path.parent}")
    if os.getuid() == 0:
        assert error_as_stranger(lambda: socket.socket(socket.AF_UNIX).connect(str(path))) == errno.EACCES


def error_as_stranger(attack: Callable[[], object]) -> int:
    """Return the error number of an attack by another user; 0 if it succeeds. Only root can call this."""
    if (child := os.fork()) == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            attack()
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
