"""Tests of the measurement of the CPU, memory and GPU use of hosts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microjobs_orchestrator.local.runtimes.base import GpuUsage
from microjobs_orchestrator.local.runtimes.gpus import measure_gpus
from microjobs_orchestrator.local.runtimes.process.usage import measure
from tests.local.clients import LocalServer
from tests.polling import wait_until

CHILD_PROGRAM = "data = bytearray(200 << 20)\nfor _ in range(20_000_000): pass\nprint('done', flush=True)\ninput()"
PARENT_PROGRAM = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD_PROGRAM!r}])"


def test_descendants_of_a_process_are_measured() -> None:
    command = [sys.executable, "-c", PARENT_PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = measure(process.pid)
        process.communicate("\n")
    assert usage is not None
    assert 0.1 < usage.cpu_seconds < 60
    assert 200 << 20 <= usage.memory_bytes < 300 << 20
    assert usage.memory_limit_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_ended_process_has_no_measurement() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert measure(process.pid) is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("37, 1024, 4096\n100, 0, 4096\n", [GpuUsage(37, 25), GpuUsage(100, 0)]),
        ("[N/A], 1024, 4096\n", []),
        ("No devices were found\n", []),
        ("", []),
    ],
)
def test_gpus_are_measured_by_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, expected: list[GpuUsage]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\nprintf '{output}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert list(measure_gpus(["0", "1"])) == expected
    assert "--id=0,1" in (tmp_path / "arguments").read_text()
    assert list(measure_gpus(())) == []


def test_machine_without_nvidia_smi_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert list(measure_gpus(None)) == []


@pytest.mark.slow
def test_busy_job_has_metrics_of_its_hosts(any_runtime_server: LocalServer) -> None:
    name = any_runtime_server.start_processing("timeout 4 sh -c 'while :; do :; done'; true")
    cloudwatch = any_runtime_server.client("cloudwatch")
    dimensions = [{"Name": "Host", "Value": f"{name}/algo-1"}]

    def list_names() -> list[str]:
        metrics = cloudwatch.list_metrics(Namespace="/aws/sagemaker/ProcessingJobs", Dimensions=dimensions)["Metrics"]
        return [metric["MetricName"] for metric in metrics]

    expected = ["CPUUtilization", "DiskUtilization", "MemoryUtilization"]
    wait_until(list_names, lambda names: names == expected)
    describe = any_runtime_server.sagemaker.describe_processing_job
    job = wait_until(lambda: describe(ProcessingJobName=name), lambda job: job["ProcessingJobStatus"] == "Completed")
    points = {
        metric: cloudwatch.get_metric_statistics(
            Namespace="/aws/sagemaker/ProcessingJobs",
            MetricName=metric,
            Dimensions=dimensions,
            StartTime=job["ProcessingStartTime"],
            EndTime=job["ProcessingEndTime"],
            Period=3600,
            Statistics=["Maximum"],
        )["Datapoints"][0]["Maximum"]
        for metric in expected
    }
    assert 2 < points["CPUUtilization"] < 200  # on a busy machine, the job may get only a small part of a core
    assert 0 < points["MemoryUtilization"] < 100
