"""Pipelines of jobs that do nothing or sleep: the local server, compared with LocalPipelineSession of the SDK v2.

    uv run python bench/pipelines.py [--runs 5]

Each round runs a chain of steps that do nothing, and independent steps that sleep: as jobs that a client starts one
after the other, as a pipeline of the local server, and as a local pipeline of the SDK. Prints the median of each, and
the ratio to the jobs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from harness import run_interleaved
from overhead import run_local_server, start_sdk_program, temporary_image

from microjobs_orchestrator.local import control

LOCAL_PIPELINE = Path(__file__).with_name("sdk_local_pipeline.py")
IMAGE = "microjobs-bench/sleep:dev"
STEPS = 4
PAUSE_SECONDS = 2.0
"""Seconds for which each independent step sleeps."""
POLL_INTERVAL_SECONDS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--base", default="microjobs/serve:dev", help="an image of the engine (default: %(default)s)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(temporary_image(options.base, IMAGE))
        address = stack.enter_context(run_local_server(folder))
        program = [str(LOCAL_PIPELINE), IMAGE, str(STEPS), f"{PAUSE_SECONDS:g}"]
        send_to_sdk = stack.enter_context(start_sdk_program(folder, address, *program))
        timers = Timers(address, send_to_sdk)
        for name, seconds in (("chain", 0.0), ("parallel", PAUSE_SECONDS)):
            candidates = timers.make_candidates(name, seconds)
            run_interleaved(candidates, 1)  # the first round warms the candidates up
            report(name, run_interleaved(candidates, options.runs))


def report(name: str, times: Mapping[str, Sequence[float]]) -> None:
    baseline = statistics.median(times["jobs"])
    print(f"{name}, {STEPS} steps")
    for candidate, seconds in times.items():
        median = statistics.median(seconds)
        print(f"  {candidate:22} {median:6.2f} s  {median / STEPS:5.2f} s per step  {median / baseline:5.2f}x")


class Timers:
    """Functions that run jobs and pipelines and return their seconds."""

    def __init__(self, address: control.Address, send_to_sdk: Callable[[str], float]) -> None:
        self._address = address
        self._send_to_sdk = send_to_sdk
        self._client: Any = boto3.client(
            "sagemaker",
            endpoint_url=address.url,
            region_name=address.region,
            aws_access_key_id=address.access_key_id,
            aws_secret_access_key=address.secret_access_key,
        )

    def make_candidates(self, name: str, seconds: float) -> dict[str, Callable[[], float]]:
        steps = [
            {
                "Name": f"{name}{number}",
                "Type": "Processing",
                "Arguments": self._make_request(seconds),
                "DependsOn": [f"{name}{number - 1}"] if name == "chain" and number else [],
            }
            for number in range(STEPS)
        ]
        definition = json.dumps({"Version": "2020-12-01", "Steps": steps})
        self._client.create_pipeline(PipelineName=name, PipelineDefinition=definition, RoleArn=self._address.role_arn)
        return {
            "jobs": lambda: self._run_jobs(seconds),
            "local server": lambda: self._run_pipeline(name),
            "LocalPipelineSession": lambda: self._send_to_sdk(name),
        }

    def _make_request(self, seconds: float) -> dict[str, Any]:
        return {
            "RoleArn": self._address.role_arn,
            "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["/bin/sleep", f"{seconds:g}"]},
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
            },
        }

    def _run_jobs(self, seconds: float) -> float:
        start_time = time.perf_counter()
        for number in range(STEPS):
            name = f"job-{time.time_ns()}-{number}"
            self._client.create_processing_job(ProcessingJobName=name, **self._make_request(seconds))
            self._wait(partial(self._client.describe_processing_job, ProcessingJobName=name), "Completed")
        return time.perf_counter() - start_time

    def _run_pipeline(self, name: str) -> float:
        start_time = time.perf_counter()
        arn = self._client.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
        self._wait(lambda: self._client.describe_pipeline_execution(PipelineExecutionArn=arn), "Succeeded")
        return time.perf_counter() - start_time

    def _wait(self, describe: Callable[[], Mapping[str, Any]], success: str) -> None:
        while (status := _find_status(describe())) in ("InProgress", "Executing"):
            time.sleep(POLL_INTERVAL_SECONDS)
        if status != success:
            sys.exit(f"a job or a pipeline is {status}")


def _find_status(description: Mapping[str, Any]) -> str:
    return next(str(value) for name, value in description.items() if name.endswith("Status"))


if __name__ == "__main__":
    main()
