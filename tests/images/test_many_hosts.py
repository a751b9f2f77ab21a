"""Trainers on several hosts: one container per host, in a network of the job."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testcontainers.core.network import Network

from microjobs.bundle import read_bundle
from microjobs.contract import (
    Channel,
    Layout,
    ResourceConfig,
    write_hyperparameters,
    write_input_data_config,
    write_training_resource_config,
)
from tests.images.conftest import EndedJob, Job, RunJob, StartJob
from tests.images.training import load_weights, write_small_data, write_training_config

pytestmark = pytest.mark.engine

TENSORFLOW, TORCH = "train-tensorflow", "train-pytorch"
both_trainers = pytest.mark.parametrize("job", [TENSORFLOW, TORCH])

EPOCHS = 40
SECOND_EPOCH = {TENSORFLOW: "Epoch 2/", TORCH: "Epoch: 1 "}
"""Text that an image logs during or after the second epoch. The PyTorch trainer counts epochs from 0."""
MANY_EPOCHS = 1_000_000


class Hosts:
    """The folders of a job's hosts, and their containers."""

    def __init__(self, folder: Path, count: int, start: Callable[[str, Layout, str], Job]) -> None:
        self.layouts = {f"algo-{number}": Layout(folder / f"algo-{number}") for number in range(1, count + 1)}
        self.jobs_by_host: dict[str, Job] = {}
        self._start = start

    @property
    def first_layout(self) -> Layout:
        return self.layouts["algo-1"]

    def prepare(self, distribution: str = "FullyReplicated", **hyperparameters: object) -> None:
        """Write the same request and data for all hosts."""
        for host, layout in self.layouts.items():
            write_training_config(layout, **hyperparameters)
            channel = Channel(distribution=distribution)
            write_input_data_config(layout, {"train": channel, "test": channel})
            write_training_resource_config(layout, ResourceConfig(host, tuple(self.layouts)))
            write_small_data(layout)

    def start(self, job: str) -> None:
        self.jobs_by_host = {host: self._start(job, layout, host) for host, layout in self.layouts.items()}

    def wait(self, except_host: str = "") -> dict[str, EndedJob]:
        return {host: job.wait(timeout=300) for host, job in self.jobs_by_host.items() if host != except_host}

    def run(self, job: str) -> dict[str, EndedJob]:
        """Run a job on all hosts and check that it succeeds."""
        self.start(job)
        runs = self.wait()
        assert {run.exit_code for run in runs.values()} == {0}, "\n".join(run.log[-3000:] for run in runs.values())
        assert [find_warnings(run) for run in runs.values()] == [[]] * len(runs)
        return runs


def find_warnings(run: EndedJob) -> list[str]:
    """Return the log lines at WARNING or above, except a known traceback of torchrun.

    At the end of a script, the agents of torchrun wait for each other with the store of the first host's agent. That
    agent may exit before another agent has read the answer of the store. The other agent logs the lost connection as
    "Error waiting on exit barrier", and still exits with 0.
    """
    prefixes = re.findall(r"^(E\d{4} .*\]) Error waiting on exit barrier", run.log, re.MULTILINE)
    tolerated = [f"{prefix} Traceback (most recent call last):" for prefix in prefixes]
    return [line for line in run.warnings() if line not in tolerated]


MakeHosts = Callable[[int], Hosts]


@pytest.fixture
def make_hosts(network: Network, start_job: StartJob, tmp_path: Path) -> MakeHosts:
    """A function that takes a number of hosts, and returns the hosts. The test prepares and starts them."""

    def start(job: str, layout: Layout, host: str) -> Job:
        return start_job(job, ["train"], layout.root, hostname=host, network=network)

    return lambda count: Hosts(tmp_path, count, start)


def train_on_one_host(job: str, root: Path, run_job: RunJob, **hyperparameters: object) -> Layout:
    layout = Layout(root)
    write_training_config(layout, **hyperparameters)
    write_small_data(layout)
    run_job(job, ["train"], root)
    return layout


def assert_equal_models(actual: Layout, expected: Layout) -> None:
    """Assert that two jobs wrote the same weights, and the same metrics except their duration."""
    pairs = zip(load_weights(actual.model / "model.onnx"), load_weights(expected.model / "model.onnx"), strict=True)
    assert all(np.allclose(weight, expected_weight, atol=1e-4) for weight, expected_weight in pairs)
    metrics, expected_metrics = (dict(read_bundle(layout.model).manifest.metrics) for layout in (actual, expected))
    del metrics["seconds"], expected_metrics["seconds"]
    assert metrics == pytest.approx(expected_metrics, rel=1e-3, abs=1e-4)


@both_trainers
def test_resumed_training_on_two_hosts_equals_one_host(
    job: str, make_hosts: MakeHosts, root: Path, run_job: RunJob
) -> None:
    """Only one host receives the signal, only the first host has checkpoints, and the last batch has 4 of 24 rows."""
    request: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 10, "learning_rate": 0.005}
    two_hosts = make_hosts(2)
    two_hosts.prepare(**request)
    two_hosts.first_layout.checkpoints.mkdir()
    two_hosts.start(job)
    two_hosts.jobs_by_host["algo-1"].wait_for_log(SECOND_EPOCH[job])
    two_hosts.jobs_by_host["algo-2"].container.kill("SIGTERM")
    stopped = two_hosts.wait()
    assert {run.exit_code for run in stopped.values()} == {0}, stopped["algo-2"].log
    runs = two_hosts.run(job)
    assert "resuming after" in runs["algo-1"].log
    assert_equal_models(two_hosts.first_layout, train_on_one_host(job, root, run_job, **request))
    assert "Epoch" not in runs["algo-2"].log
    assert (
        list(two_hosts.layouts["algo-2"].model.iterdir())
        == list(two_hosts.layouts["algo-2"].output_data.iterdir())
        == []
    )


@both_trainers
def test_four_hosts_with_uneven_shards_equal_one_host(
    job: str, make_hosts: MakeHosts, root: Path, run_job: RunJob
) -> None:
    """Each step uses all rows (batch size 0). Only the host without rows has the scaler."""
    request: dict[str, Any] = {"epochs": 6, "batch_size": 0, "learning_rate": 0.01}
    four_hosts = make_hosts(4)
    four_hosts.prepare("ShardedByS3Key", **request)
    for layout, (train, test) in zip(four_hosts.layouts.values(), SHARDS, strict=True):
        keep_rows(layout, "train", train)
        keep_rows(layout, "test", test)
        if train:
            (layout.channel("train") / "scaler.json").unlink()
    four_hosts.run(job)
    assert_equal_models(four_hosts.first_layout, train_on_one_host(job, root, run_job, **request))
    assert (four_hosts.first_layout.model / "scaler.json").exists()


SHARDS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((0, 13), (0, 1)),
    ((13, 14), (1, 8)),
    ((14, 24), ()),
    ((), ()),
]
"""The bounds of the training rows and of the test rows of each host."""


def keep_rows(layout: Layout, split: str, bounds: tuple[int, ...]) -> None:
    """Keep the rows from `bounds[0]` to `bounds[1]` of a host's split. Without bounds, delete the split's files."""
    for letter in "xy":
        path = layout.channel(split) / f"{letter}_{split}.npy"
        rows = np.load(path)
        path.unlink()
        if bounds:
            np.save(path, rows[slice(*bounds)])


@pytest.mark.parametrize(("job", "victim"), [(TENSORFLOW, "algo-1"), (TORCH, "algo-2")])
def test_lost_host_ends_the_job_on_the_other_hosts(job: str, victim: str, make_hosts: MakeHosts) -> None:
    """This test kills a host. Frozen hosts and broken networks, whose detection takes 20 s, have faster tests without
    containers."""
    two_hosts = make_hosts(2)
    two_hosts.prepare(epochs=MANY_EPOCHS, batch_size=10)
    two_hosts.start(job)
    two_hosts.jobs_by_host["algo-1"].wait_for_log(SECOND_EPOCH[job])
    two_hosts.jobs_by_host[victim].container.kill()
    start = time.monotonic()
    (run,) = two_hosts.wait(except_host=victim).values()
    assert time.monotonic() - start < 60
    assert run.exit_code == 3, run.log
    assert run.failure is not None
    assert run.failure.startswith(f"lost host {victim}: ")


@both_trainers
def test_invalid_data_of_one_host_ends_all_hosts(job: str, make_hosts: MakeHosts) -> None:
    two_hosts = make_hosts(2)
    two_hosts.prepare()
    (two_hosts.layouts["algo-2"].channel("train") / "y_train.npy").unlink()
    two_hosts.start(job)
    for run in two_hosts.wait().values():
        assert run.exit_code == 2, run.log
        assert run.failure is not None
        assert run.failure.startswith("host algo-2 failed: ")
        assert "has no y_train.npy" in run.failure


TORCH_SWITCH, TENSORFLOW_SWITCH = (
    "sagemaker_torch_distributed_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
)
JOIN_CODE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
"""
SUM_RANKS_CODE = """
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
result = {"hosts": dist.get_world_size(), "sum": int(total)}
dist.destroy_process_group()  # without this call, PyTorch may abort at exit
"""
READ_TF_CONFIG_CODE = """
import json, os
config = json.loads(os.environ["TF_CONFIG"])
result = {"hosts": len(config["cluster"]["worker"]), "type": config["task"]["type"]}
"""
WRITE_RESULT_CODE = """
import json, os, pathlib
pathlib.Path(os.environ["SM_MODEL_DIR"], "result.json").write_text(json.dumps(result))
"""
FAIL_CODE = """
assert dist.get_rank() == 0, "only rank 0 is expected"
dist.barrier()
"""


@pytest.mark.parametrize(
    ("job", "switch", "script", "expected_result"),
    [
        (TORCH, TORCH_SWITCH, JOIN_CODE + SUM_RANKS_CODE, {"hosts": 2, "sum": 1 + 2}),
        (TENSORFLOW, TENSORFLOW_SWITCH, READ_TF_CONFIG_CODE, {"hosts": 2, "type": "worker"}),
    ],
)
def test_sdk_setting_runs_the_script_on_all_hosts(
    job: str, switch: str, script: str, expected_result: dict[str, Any], make_hosts: MakeHosts
) -> None:
    two_hosts = make_hosts(2)
    two_hosts.prepare()
    for layout in two_hosts.layouts.values():
        write_user_script(layout, switch, script + WRITE_RESULT_CODE)
    two_hosts.run(job)
    results = [json.loads((layout.model / "result.json").read_text()) for layout in two_hosts.layouts.values()]
    assert results == [expected_result] * 2


def test_script_that_fails_on_one_host_ends_all_hosts(make_hosts: MakeHosts) -> None:
    two_hosts = make_hosts(2)
    two_hosts.prepare()
    for layout in two_hosts.layouts.values():
        write_user_script(layout, TORCH_SWITCH, JOIN_CODE + FAIL_CODE)
    two_hosts.start(TORCH)
    for run in two_hosts.wait().values():
        assert run.exit_code == 1, run.log
        assert run.failure is not None
        assert run.failure.startswith("host algo-2 failed: train.py failed: AssertionError: only rank 0 is expected")


def write_user_script(layout: Layout, switch: str, script: str) -> None:
    code = layout.input_data / "code"
    code.mkdir()
    (code / "train.py").write_text(script)
    source = layout.to_contract_path(code)
    write_hyperparameters(layout, {switch: True, "sagemaker_program": "train.py", "sagemaker_submit_directory": source})
