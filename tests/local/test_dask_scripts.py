"""Tests of users' scripts on Dask clusters. A boto3 client sends the requests that the SDK's ScriptProcessor sends."""

import json
from typing import Any

import pytest

from microjobs.contract import Layout
from tests.conftest import make_image_name
from tests.local.clients import ROOT, LocalServer, make_processing_input, make_processing_output, make_unique_name

LAYOUT = Layout()
CODE, INPUT, OUTPUT = (str(LAYOUT.processing(name)) for name in ("input/code", "input/data", "output"))
"""Paths in the hosts."""

SCRIPT = """
import json, sys
from dask.distributed import Client
import squares

source, output = sys.argv[1:]
with Client() as client:
    squared = client.map(squares.square, [int(number) for number in open(f"{source}/numbers").read().split()])
    hosts = {name.split("/")[0] for name in client.run(lambda dask_worker: dask_worker.name).values()}
    result = {"total": client.submit(sum, squared).result(), "hosts": sorted(hosts), "url": client.scheduler.address}
with open(f"{output}/result.json", "w") as file:
    json.dump(result, file)
"""
SHOW_FILES_SCRIPT = (
    f"cd {ROOT}/secret; stat -c %a * > {ROOT}/processing/output/modes; "
    f"cat certificate.pem key.pem > {ROOT}/processing/output/key; with-dask env"
)


def run_job(
    server: LocalServer, entrypoint: list[str], arguments: list[str], instances: int
) -> tuple[dict[str, Any], str]:
    """Run a processing job; return its description and the prefix of its output files."""
    prefix = make_unique_name("dask")
    server.put(
        {
            f"{prefix}/code/total.py": SCRIPT,
            f"{prefix}/code/squares.py": "def square(number):\n    return number**2\n",
            f"{prefix}/data/numbers": " ".join(map(str, range(50))),
        }
    )
    job = server.process(
        "",
        instances=instances,
        AppSpecification={
            "ImageUri": make_image_name("preprocess"),
            "ContainerEntrypoint": entrypoint,
            "ContainerArguments": arguments,
        },
        ProcessingInputs=[
            make_processing_input("code", server.uri(f"{prefix}/code"), CODE),
            make_processing_input("data", server.uri(f"{prefix}/data"), INPUT),
        ],
        ProcessingOutputConfig={"Outputs": [make_processing_output("output", server.uri(f"{prefix}/output"), OUTPUT)]},
    )
    return job, f"{prefix}/output"


@pytest.mark.slow
def test_script_uses_the_workers_of_all_hosts(any_runtime_server: LocalServer) -> None:
    job, output = run_job(
        any_runtime_server, ["with-dask", "python3", f"{CODE}/total.py"], [INPUT, OUTPUT], instances=2
    )
    assert job["ProcessingJobStatus"] == "Completed", job
    result = json.loads((any_runtime_server.bucket / output / "result.json").read_text())
    assert result["total"] == sum(number**2 for number in range(50))
    assert result["hosts"] == ["algo-1", "algo-2"]
    assert result["url"].startswith("tls://")


@pytest.mark.slow
def test_failing_script_fails_the_job_with_its_last_line(process_server: LocalServer) -> None:
    job, _ = run_job(process_server, ["with-dask", "python3", f"{CODE}/total.py"], ["/nowhere", OUTPUT], instances=2)
    assert job["ProcessingJobStatus"] == "Failed"
    reason = "host algo-1 failed: total.py failed: FileNotFoundError: [Errno 2] No such file or directory: "
    assert reason + "'/nowhere/numbers' (exit code 1)" in job["FailureReason"]


def test_key_of_a_job_is_new_and_not_logged(any_runtime_server: LocalServer) -> None:
    keys = []
    for _ in range(2):
        job, output = run_job(any_runtime_server, ["/bin/sh", "-c"], [SHOW_FILES_SCRIPT], instances=1)
        assert job["ProcessingJobStatus"] == "Completed", job
        keys.append((any_runtime_server.bucket / output / "key").read_text())
        description_and_logs = str([job, any_runtime_server.read_logs("ProcessingJobs", job["ProcessingJobName"])])
        assert not [line for line in keys[-1].splitlines() if not line.startswith("-") and line in description_and_logs]
    assert keys[0] != keys[1]


def test_only_the_owner_can_read_the_key(process_server: LocalServer) -> None:
    job, output = run_job(process_server, ["/bin/sh", "-c"], [SHOW_FILES_SCRIPT], instances=2)
    assert job["ProcessingJobStatus"] == "Completed", job
    assert (process_server.bucket / output / "modes").read_text().split() == ["600"] * 3


def test_image_without_dask_names_the_image_that_has_it(process_server: LocalServer) -> None:
    job = process_server.process("exec with-dask true")
    assert job["ProcessingJobStatus"] == "Failed"
    assert "this image has no Dask; use the image preprocess" in job["FailureReason"]
