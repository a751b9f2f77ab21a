"""Tests of the ready-made jobs on the process runtime, in environments made from their lock files."""

import errno
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from microjobs.contract import (
    Layout,
    ResourceConfig,
    write_hyperparameters,
    write_processing_resource_config,
    write_training_resource_config,
)
from microjobs.network import SOCKET_FOLDER_VARIABLE, Network
from microjobs.scaler import read_scaler
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.models.client import Client, NoResponseError
from microjobs_orchestrator.local.runtimes.base import Exit, Host, Input, Plan
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime
from tests.bundles import write_linear_bundle
from tests.conftest import CONTAINERS
from tests.images.training import write_training_config
from tests.local.clients import create_home_with_shared_environments
from tests.local.machine import list_listening_addresses, read_variables_by_process
from tests.local.runtimes.processes import get_names, make_host_plan, read_output, wait_for_line
from tests.local.trees import copy_from_host
from tests.packages import make_wheel

LAYOUT = Layout()
INPUT, TRAIN, TEST = (str(LAYOUT.processing(name)) for name in ("input", "train", "test"))
"""Paths in the hosts."""
HOST_NAMES = tuple(f"algo-{number}" for number in range(1, 5))
Arrays = Mapping[str, NDArray[np.float64]]

RANDOM_GENERATOR = np.random.default_rng(1)
ARRAYS: Arrays = {
    "x_test": RANDOM_GENERATOR.normal(1, 2, (50, 13)),
    "x_train": RANDOM_GENERATOR.normal(1, 2, (200, 13)),
    "y_test": RANDOM_GENERATOR.normal(size=50),
    "y_train": RANDOM_GENERATOR.normal(size=200),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that all tests share."""
    home = Home(tmp_path_factory.mktemp("home"))
    create_home_with_shared_environments(home)
    return home


@pytest.fixture
def runtime(home: Home) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime(home, CONTAINERS)
    yield runtime
    runtime.close()
    for folder in (home.work / "process").iterdir():
        runtime.remove(folder.name)


def save_arrays(folder: Path, path: str, arrays: Arrays) -> Input:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return Input(path, folder)


def make_channels(folder: Path) -> Sequence[Input]:
    """Return the two channels of a trainer."""
    return [
        save_arrays(
            folder / split, str(LAYOUT.channel(split)), {name: ARRAYS[name] for name in (f"x_{split}", f"y_{split}")}
        )
        for split in ("train", "test")
    ]


def start_trainer(runtime: ProcessRuntime, folder: Path, **hyperparameters: object) -> Host:
    def write(layout: Layout) -> None:
        write_hyperparameters(layout, {"learning_rate": 0.001, **hyperparameters})

    inputs = tuple(make_channels(folder / "inputs"))
    plan = make_host_plan(folder, "train-tensorflow", write=write, inputs=inputs, arguments=("train",))
    return runtime.start(Plan("training-job/job", (plan,)))[0]


def make_four_hosts_plan(folder: Path, arrays: Arrays = ARRAYS) -> Plan:
    """Return a plan with one file per host, as ShardedByS3Key distributes four files."""

    def make_writer(name: str) -> Callable[[Layout], None]:
        return lambda layout: write_processing_resource_config(layout, ResourceConfig(name, HOST_NAMES))

    shares = zip(HOST_NAMES, arrays.items(), strict=True)
    inputs = {host: save_arrays(folder / "inputs" / host, INPUT, dict([share])) for host, share in shares}
    hosts = (
        make_host_plan(folder, "preprocess", name=name, write=make_writer(name), inputs=(inputs[name],))
        for name in HOST_NAMES
    )
    return Plan("processing-job/four-hosts", tuple(hosts))


def test_preprocessing_runs_on_one_host(runtime: ProcessRuntime, tmp_path: Path) -> None:
    plan = make_host_plan(tmp_path, "preprocess", inputs=(save_arrays(tmp_path / "input", INPUT, ARRAYS),))
    (host,) = runtime.start(Plan("processing-job/one-host", (plan,)))
    assert host.wait() == Exit(0), read_output(host)
    assert copy_from_host(host, TRAIN, tmp_path / "train")
    np.testing.assert_allclose(np.load(tmp_path / "train" / "x_train.npy").mean(axis=0), np.zeros(13), atol=1e-5)
    assert "scaled 13 features with the statistics of 200 training rows" in read_output(host)


def test_installed_packages_are_not_visible_to_other_jobs(runtime: ProcessRuntime, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    wheel = make_wheel(folder)
    code = Input(str(LAYOUT.processing("code")), folder)
    script = f"pip install --no-index {LAYOUT.processing('code') / wheel.name} && python3 -c 'import tiny, numpy'"
    plan = make_host_plan(tmp_path, "preprocess", inputs=(code,), entrypoint=("bash", "-c"), arguments=(script,))
    (host,) = runtime.start(Plan("processing-job/installs", (plan,)))
    assert host.wait() == Exit(0), read_output(host)
    other_plan = make_host_plan(
        tmp_path / "other", "preprocess", entrypoint=("python3", "-c"), arguments=("import tiny",)
    )
    (host,) = runtime.start(Plan("processing-job/other", (other_plan,)))
    assert host.wait() == Exit(1)
    assert "No module named 'tiny'" in read_output(host)


@pytest.mark.slow
def test_preprocessing_runs_on_four_hosts(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hosts = runtime.start(make_four_hosts_plan(tmp_path))
    assert [host.wait() for host in hosts] == [Exit(0)] * 4, [read_output(host) for host in hosts]
    for host in hosts:
        for folder in (TRAIN, TEST):
            copy_from_host(host, folder, tmp_path / "out")
    assert get_names((tmp_path / "out").glob("*.npy")) == {f"{name}.npy" for name in ARRAYS}
    scaler = read_scaler(tmp_path / "out")
    assert scaler is not None
    np.testing.assert_allclose(scaler.mean, ARRAYS["x_train"].mean(axis=0))


@pytest.mark.slow
def test_lost_host_ends_all_other_hosts(runtime: ProcessRuntime, tmp_path: Path) -> None:
    # A host needs seconds to read these arrays. Within this time, another host is stopped.
    long_arrays = {"x_train": np.broadcast_to(1.0, (3_000_000, 13)), "y_train": np.zeros(3_000_000)}
    hosts = runtime.start(make_four_hosts_plan(tmp_path, {**ARRAYS, **long_arrays}))
    wait_for_line(hosts[0], b"algo-4 has")
    hosts[3].stop(0)
    assert {host.wait().code for host in hosts[:3]} == {3}
    assert all("lost host algo-4" in read_output(host) for host in hosts[:3])


@pytest.mark.slow
def test_stopped_trainer_keeps_its_model(runtime: ProcessRuntime, tmp_path: Path) -> None:
    host = start_trainer(runtime, tmp_path, epochs=1_000_000)
    wait_for_line(host, b"Epoch 2/")
    host.stop(120)
    assert host.wait() == Exit(0), read_output(host)
    assert "the model is saved" in read_output(host)
    assert copy_from_host(host, str(LAYOUT.model), tmp_path / "model")
    assert get_names((tmp_path / "model").iterdir()) >= {"model.onnx", "1", "manifest.json"}


def start_script(runtime: ProcessRuntime, folder: Path, script: str, *packages: Path) -> Sequence[Host]:
    """Start a user's script in script mode on two hosts, with packages as its requirements."""

    def write(name: str, layout: Layout) -> None:
        write_training_config(layout, sagemaker_program="train.py", epochs=3)
        write_training_resource_config(layout, ResourceConfig(name, HOST_NAMES[:2]))
        layout.code.mkdir()
        (layout.code / "train.py").write_text(script)
        (layout.code / "requirements.txt").write_text("\n".join(map(str, packages)))

    hosts = (
        make_host_plan(folder, "preprocess", name=name, write=partial(write, name), arguments=("train",))
        for name in HOST_NAMES[:2]
    )
    return runtime.start(Plan(f"training-job/{folder.name}", tuple(hosts)))


@pytest.mark.slow
def test_requirements_of_training_scripts_are_not_visible_to_other_jobs(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    script = "import os, sys, tiny; open(os.environ['SM_MODEL_DIR'] + '/arguments', 'w').write(str(sys.argv[1:]))"
    for host in start_script(runtime, tmp_path / "first", script, make_wheel(tmp_path)):
        assert host.wait() == Exit(0), read_output(host)
        assert copy_from_host(host, str(LAYOUT.model), tmp_path / host.name)
        assert (tmp_path / host.name / "arguments").read_text() == "['--epochs', '3']"
    for host in start_script(runtime, tmp_path / "second", script):
        assert host.wait() == Exit(1)
        assert "No module named 'tiny'" in read_output(host)


def start_endpoint(runtime: ProcessRuntime, folder: Path, name: str, weight: float) -> Host:
    plan = make_host_plan(
        folder / name,
        "serve",
        write=lambda layout: write_linear_bundle(layout.model, [weight], 0.5),
        arguments=("serve",),
        port=8080,
    )
    return runtime.start(Plan(f"endpoint/{name}", (plan,)))[0]


def send_request(host: Host, path: str, body: bytes | None = None) -> bytes:
    response_body = io.BytesIO()
    with closing(Client(host.connect)) as client:
        method, headers = ("GET" if body is None else "POST"), {"Content-Type": "application/json"}
        client.request(method, path, body, headers, timeout=10, into=response_body)
    return response_body.getvalue()


def wait_for_ping(host: Host) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            send_request(host, "/ping")
        except NoResponseError:
            assert time.monotonic() < deadline, read_output(host)
            time.sleep(0.05)
        else:
            return


def test_two_endpoints_serve_at_once_and_exit_with_zero(runtime: ProcessRuntime, tmp_path: Path) -> None:
    hosts = [start_endpoint(runtime, tmp_path, name, weight) for name, weight in (("one", 1.0), ("two", 2.0))]
    for host, prediction in zip(hosts, (3.5, 6.5), strict=True):
        wait_for_ping(host)
        answer = json.loads(send_request(host, "/invocations", b'{"instances": [[3.0]]}'))
        assert np.ravel(answer["predictions"]).tolist() == [prediction]
    for host in hosts:
        host.stop(30)
        assert host.wait() == Exit(0), read_output(host)


def test_other_users_cannot_connect_to_an_endpoint(runtime: ProcessRuntime, home: Home, tmp_path: Path) -> None:
    """Requests to the socket need no signature, so only the user of the server may connect to it."""
    host = start_endpoint(runtime, tmp_path, "one", 1.0)
    wait_for_ping(host)
    folders = {
        variables.get(SOCKET_FOLDER_VARIABLE) for variables in read_variables_by_process(str(home.root)).values()
    } - {None}
    (path,) = (Network.make_socket_path(str(folder)) for folder in folders)
    assert path.is_socket()
    assert (path.parent.stat().st_mode & 0o777, path.parent.stat().st_uid) == (0o700, os.getuid())
    assert not list_listening_addresses(f"{SOCKET_FOLDER_VARIABLE}={path.parent}")
    if os.getuid() == 0:
        assert attack_as_stranger(lambda: socket.socket(socket.AF_UNIX).connect(str(path))) == errno.EACCES


def attack_as_stranger(attack: Callable[[], object]) -> int:
    """Run an attack as another user. Return the error number, or 0 if the attack succeeds. Only root can call this."""
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
