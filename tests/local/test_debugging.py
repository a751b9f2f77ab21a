"""Tests of MICROJOBS_DEBUG_PORT: a client of the Debug Adapter Protocol attaches to the scripts of jobs."""

import json
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from microjobs.contract import Layout
from microjobs_orchestrator.local.lifecycle.debugging import add_debugger
from microjobs_orchestrator.local.runtimes.base import CannotRunError, HostPlan, Plan
from tests.conftest import make_image_name
from tests.local.clients import ROOT, LocalServer, make_processing_input, make_unique_name
from tests.local.debug_client import LOOPBACK, connect
from tests.local.machine import list_containers
from tests.polling import wait_until
from tests.ports import find_free_port

SCRIPT_FOLDER = str(Layout().processing("input"))
"""The folder of the scripts in the hosts."""
SCRIPT = """# A script of a user.
import subprocess, sys
import helper

value = helper.double(21)
subprocess.run([sys.executable, "-c", "print('a child runs')"], check=True)
print("value", value)
"""
HELPER_MODULE = """def double(x):
    return 2 * x
"""


def start_script(server: LocalServer, port: int | str, **members: Any) -> str:
    """Start a processing job that runs a user's script in a shell, and that a debugger can reach at a port."""
    server.put({"code/train.py": SCRIPT, "code/helper.py": HELPER_MODULE})
    return server.start_processing(
        f'python3 -c "print(1)" && python3 {ROOT}/processing/input/train.py',
        ProcessingInputs=[make_processing_input("code", server.uri("code"), SCRIPT_FOLDER)],
        Environment={"MICROJOBS_DEBUG_PORT": str(port), **members.pop("Environment", {})},
        **members,
    )


def wait_for_processing(server: LocalServer, name: str) -> dict[str, Any]:
    job: dict[str, Any] = wait_until(
        lambda: server.sagemaker.describe_processing_job(ProcessingJobName=name),
        lambda job: job["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped"),
    )
    return job


def test_debugger_stops_at_the_first_line_and_at_breakpoints(any_runtime_server: LocalServer) -> None:
    name = start_script(any_runtime_server, port := find_free_port(), Environment={"PYTHONPATH": "/somewhere"})
    with connect(port) as debugger:
        debugger.attach({})
        assert debugger.wait_for_stop() == ("train.py", 2)
        path = debugger.evaluate("__file__").strip("'").replace("train.py", "helper.py")
        debugger.request("setBreakpoints", source={"path": path}, breakpoints=[{"line": 2}])
        debugger.resume()
        assert debugger.wait_for_stop() == ("helper.py", 2)
        assert debugger.evaluate("x") == "21"
        assert "/somewhere" in debugger.evaluate("__import__('os').environ['PYTHONPATH']")
        debugger.resume()
        debugger.wait_for_event("terminated")
    assert wait_for_processing(any_runtime_server, name)["ProcessingJobStatus"] == "Completed"
    lines = any_runtime_server.read_logs("ProcessingJobs", name)["algo-1"]
    assert f"connects to {LOOPBACK}:{port}" in lines[0]
    assert any(f"train.py waits for a debugger at port {port}" in line for line in lines)
    assert {"1", "a child runs", "value 42"} <= set(lines)


def test_job_that_waits_for_a_debugger_can_be_stopped(process_server: LocalServer) -> None:
    name = start_script(process_server, port := find_free_port())
    with connect(port):
        process_server.sagemaker.stop_processing_job(ProcessingJobName=name)
        assert wait_for_processing(process_server, name)["ProcessingJobStatus"] == "Stopped"


def test_only_the_first_host_waits(process_server: LocalServer) -> None:
    name = start_script(process_server, port := find_free_port(), instances=2)
    with connect(port) as debugger:
        wait_until(
            lambda: process_server.read_logs("ProcessingJobs", name).get("algo-2", []),
            lambda lines: "value 42" in lines,
        )
        debugger.attach({})
        debugger.wait_for_stop()
        debugger.resume()
        assert wait_for_processing(process_server, name)["ProcessingJobStatus"] == "Completed"


def test_script_that_does_not_match_the_pattern_does_not_wait(process_server: LocalServer) -> None:
    name = start_script(process_server, find_free_port(), Environment={"MICROJOBS_DEBUG_SCRIPT": "other.py"})
    assert wait_for_processing(process_server, name)["ProcessingJobStatus"] == "Completed"


@pytest.mark.parametrize(
    ("port", "members", "reason"),
    [
        ("80", {}, "MICROJOBS_DEBUG_PORT '80' is not a port: use a number from 1024 to 65535"),
        ("five", {}, "MICROJOBS_DEBUG_PORT 'five' is not a port"),
        ("5678", {"NetworkConfig": {"EnableNetworkIsolation": True}}, "jobs with EnableNetworkIsolation have no port"),
    ],
)
def test_invalid_request_for_a_debugger_fails_the_job(
    process_server: LocalServer, port: str, members: dict[str, Any], reason: str
) -> None:
    job = wait_for_processing(process_server, start_script(process_server, port, **members))
    assert job["ProcessingJobStatus"] == "Failed"
    assert reason in job["FailureReason"]


def make_plan(folder: Path, **options: Any) -> Plan:
    host = HostPlan("algo-1", "image", folder, environment={"MICROJOBS_DEBUG_PORT": "5678"}, **options)
    return Plan("job/a", (host,))


def test_endpoints_cannot_be_debugged(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="endpoints and transform jobs have no port for a debugger"):
        add_debugger(make_plan(tmp_path, port=8080), "docker")


def test_missing_debugpy_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CannotRunError, match=r"needs debugpy .*: run `pip install debugpy` there"):
        add_debugger(make_plan(tmp_path), "docker")


def test_plan_without_the_variable_is_unchanged(tmp_path: Path) -> None:
    plan = Plan("job/a", (HostPlan("algo-1", "image", tmp_path),))
    assert add_debugger(plan, "docker") == plan
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine
def test_port_of_a_container_is_published_on_loopback_only(server: LocalServer) -> None:
    name = start_script(server, port := find_free_port())
    with connect(port) as debugger:
        (container,) = (item for item in list_containers(server.home) if name in str(item.name))
        assert container.attrs["HostConfig"]["PortBindings"] == {
            f"{port}/tcp": [{"HostIp": LOOPBACK, "HostPort": str(port)}]
        }
        debugger.attach({})
        debugger.wait_for_stop()
        debugger.resume()
    assert wait_for_processing(server, name)["ProcessingJobStatus"] == "Completed"


@pytest.mark.engine
def test_port_in_use_fails_the_job(server: LocalServer) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        job = wait_for_processing(server, start_script(server, port := listener.getsockname()[1]))
    assert job["ProcessingJobStatus"] == "Failed"
    assert str(port) in job["FailureReason"]
    assert "in use" in job["FailureReason"]


@pytest.mark.engine
def test_training_script_of_an_estimator_can_be_debugged(server: LocalServer, tmp_path: Path) -> None:
    """The image's own programs and pip, which run before the script, do not wait."""
    (tmp_path / "train.py").write_text("import sys\nprint('epochs', sys.argv[2])\n")
    (server.bucket / "source").mkdir(parents=True)
    with tarfile.open(server.bucket / "source/sourcedir.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "train.py", "train.py")
    values = {"sagemaker_program": "train.py", "sagemaker_submit_directory": server.uri("source/sourcedir.tar.gz")}
    name, port = make_unique_name("debug"), find_free_port()
    server.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": make_image_name("preprocess"), "TrainingInputMode": "File"},
        HyperParameters={key: json.dumps(value) for key, value in {**values, "epochs": 3}.items()},
        Environment={"MICROJOBS_DEBUG_PORT": str(port)},
        RoleArn=server.address.role_arn,
        OutputDataConfig={"S3OutputPath": server.uri("models")},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 100},
    )
    with connect(port) as debugger:
        debugger.attach({str(Layout().root / "code/train.py"): [2]})
        assert debugger.wait_for_stop() == ("train.py", 1)
        debugger.resume()
        assert debugger.wait_for_stop() == ("train.py", 2)
        assert debugger.evaluate("sys.argv[2]") == "'3'"
        debugger.resume()
    assert server.wait_for_end(name)["TrainingJobStatus"] == "Completed"
    assert "epochs 3" in server.read_logs("TrainingJobs", name)["algo-1"]
