"""The plugin for pytest, in test runs of projects that use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_image_name

pytestmark = pytest.mark.slow

SETTINGS = """
import pytest

@pytest.fixture(scope="session")
def microjobs_settings():
    return {"runtime": "process"}
"""

HELPERS = f"""
import boto3

INSTANCES = {{"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}}

def process(name, script):
    boto3.client("sagemaker").create_processing_job(
        ProcessingJobName=name,
        AppSpecification={{
            "ImageUri": "{make_image_name("serve")}",
            "ContainerEntrypoint": ["sh", "-c"],
            "ContainerArguments": [script],
        }},
        ProcessingResources={{"ClusterConfig": INSTANCES}},
        RoleArn="arn:aws:iam::000000000000:role/any",
    )

def list_names():
    sagemaker = boto3.client("sagemaker")
    jobs = sagemaker.list_processing_jobs()["ProcessingJobSummaries"]
    models, endpoints = sagemaker.list_models()["Models"], sagemaker.list_endpoints()["Endpoints"]
    return [*(j["ProcessingJobName"] for j in jobs), *(m["ModelName"] for m in models), *map(str, endpoints)]
"""

TEST_FILE = f"""
import os
import boto3
import pytest
from helpers import list_names, process

@pytest.fixture(scope="session")
def shared(microjobs_server):
    model = {{"Image": "{make_image_name("serve")}"}}
    sagemaker = microjobs_server.client("sagemaker")
    sagemaker.create_model(ModelName="shared", ExecutionRoleArn=microjobs_server.role_arn, PrimaryContainer=model)

@pytest.mark.parametrize("script", ["sleep 60", "exit 3", "echo"])
def test_names_can_be_used_again(microjobs, shared, script):
    process("job", script)
    model = {{"Image": "{make_image_name("serve")}"}}
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(ModelName="model", ExecutionRoleArn=microjobs.role_arn, PrimaryContainer=model)
    variant = {{"VariantName": "a", "ModelName": "model", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}}
    sagemaker.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    sagemaker.create_model_package_group(ModelPackageGroupName="group")
    sagemaker.create_model_package(ModelPackageGroupName="group")
    assert len(list_names()) == 4

def test_only_shared_resources_remain(microjobs):
    assert list_names() == ["shared"]

def test_clients_outside_of_the_fixture_reach_no_server():
    assert "AWS_ENDPOINT_URL" not in os.environ
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that uses the plugin. Each run of its tests is a separate process."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "PYTEST_ADDOPTS", "MICROJOBS_HOME"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeconftest(SETTINGS)
    pytester.makepyfile(helpers=HELPERS)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\npythonpath = .\n")
    return pytester


def list_servers(folder: Path) -> list[str]:
    """Return the command lines of the servers whose home folders are below a folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # the process has ended
            continue
        homes = [item for item in environment if item.startswith(b"MICROJOBS_HOME=")]
        if homes and Path(os.fsdecode(homes[0].partition(b"=")[2])).is_relative_to(folder):
            commands.append(command)
    return commands


def test_resources_of_each_test_are_removed(project: pytest.Pytester) -> None:
    project.makepyfile(TEST_FILE)
    project.runpytest_subprocess("--verbose").assert_outcomes(passed=5)
    assert list_servers(project.path) == []


def test_each_worker_has_a_server(project: pytest.Pytester) -> None:
    test = "def test_{}(microjobs, worker_id):\n    open(worker_id, 'w').write(microjobs.url)\n"
    project.makepyfile(test_a=test.format("a"), test_b=test.format("b"))
    result = project.runpytest_subprocess("--numprocesses=2", "--dist=loadfile")
    result.assert_outcomes(passed=2)
    assert len({path.read_text() for path in project.path.glob("gw*")}) == 2
    assert list_servers(project.path) == []


def test_interrupted_run_leaves_no_server(project: pytest.Pytester) -> None:
    project.makepyfile(
        "from helpers import process\n"
        "def test(microjobs):\n"
        "    process('job', 'sleep 60')\n"
        "    raise KeyboardInterrupt\n"
    )
    assert project.runpytest_subprocess().ret == pytest.ExitCode.INTERRUPTED
    assert list_servers(project.path) == []


def test_plugin_imports_nothing_until_it_is_used(project: pytest.Pytester) -> None:
    code = "import sys, pytest; sys.exit(pytest.main(['-q']) or sorted(MODULES & {*sys.modules}) or 0)"
    modules = "{'boto3', 'botocore', 'docker', 'microjobs.local', 'microjobs_orchestrator.local'}"
    project.makepyfile("def test(): pass")
    command = [sys.executable, "-c", code.replace("MODULES", modules)]
    result = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
