"""Tests that the image of each folder in `containers/` must pass."""

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from microjobs.contract import MAX_FAILURE_CHARACTERS, Layout
from microjobs.hyperparameters import describe
from microjobs.interpreter import FLAGS, SYS_EXECUTABLE_VARIABLES
from microjobs.run import make_package_name
from tests.conftest import CONTAINERS, JOBS
from tests.images.conftest import EndedJob, Job, RunJob, StartJob
from tests.images.example import Example, load_example

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("job", JOBS)]

GetImageAttributes = Callable[[str], dict[str, Any]]

SAGEMAKER_OPTIONS: dict[str, Any] = {}
HARDENED_OPTIONS: dict[str, Any] = {
    "user": "12345:23456",
    "read_only": True,
    "mounts": [Mount("/tmp", None, type="tmpfs")],
    "network_mode": "none",
    "cap_drop": ["ALL"],
}
PING = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/ping', timeout=2).status)"


@pytest.fixture
def example(job: str) -> Example:
    return load_example(CONTAINERS / job)


@pytest.fixture
def prepared_layout(example: Example, root: Path) -> Layout:
    example.prepare(Layout(root))
    return Layout(root)


def give_to_another_user(root: Path) -> None:
    """Change the owner of all files, as if a user with another UID had mounted them."""
    for path in [root, *root.rglob("*")]:
        os.chown(path, 12345, 23456)


def answers_ping(job: Job) -> bool:
    return job.execute("/opt/venv/bin/python", "-I", "-c", PING) == (0, "200\n")


def run_until_exit(start: StartJob, job: str, example: Example, root: Path, options: dict[str, Any]) -> EndedJob:
    """Run a job to its end, or ping a server and stop it."""
    running_job = start(job, example.arguments, root, **options)
    if example.is_server:
        running_job.wait_until(lambda: answers_ping(running_job), "200 on /ping", timeout=60)
        running_job.stop(timeout=30)
    return running_job.wait(timeout=300)


@pytest.mark.parametrize("options", [SAGEMAKER_OPTIONS, HARDENED_OPTIONS], ids=["as-sagemaker", "hardened"])
def test_valid_input_gives_exit_code_0_and_artifacts(
    job: str, options: dict[str, Any], example: Example, prepared_layout: Layout, start_job: StartJob
) -> None:
    if options:
        give_to_another_user(prepared_layout.root)
    run = run_until_exit(start_job, job, example, prepared_layout.root, options)
    assert run.exit_code == 0, run.log
    assert run.failure is None
    assert [name for name in example.artifacts if not (prepared_layout.root / name).is_file()] == []
    assert run.warnings() == []


def test_invalid_input_gives_exit_code_2_and_the_reason(
    job: str, example: Example, prepared_layout: Layout, run_job: RunJob
) -> None:
    example.corrupt(prepared_layout)
    run = run_job(job, example.arguments, prepared_layout.root, exit_code=2)
    assert run.failure is not None
    assert example.expected_error in run.failure
    assert len(run.failure) <= MAX_FAILURE_CHARACTERS
    assert run.warnings() != []
    assert "Traceback" not in run.log


def test_results_belong_to_the_owner_of_the_folder(
    job: str, example: Example, prepared_layout: Layout, start_job: StartJob
) -> None:
    if example.is_server:
        pytest.skip("a server writes no results")
    give_to_another_user(prepared_layout.root)
    run_until_exit(start_job, job, example, prepared_layout.root, options={})
    results = [prepared_layout.root / name for name in example.artifacts]
    assert {path.stat().st_uid for path in results} == {12345}


def test_stopped_job_ends_in_time(job: str, example: Example, prepared_layout: Layout, start_job: StartJob) -> None:
    # The container is limited to a twentieth of a core until the signal is sent, so that a quick job does not end
    # earlier.
    running_job = start_job(job, example.arguments, prepared_layout.root, cpu_period=100_000, cpu_quota=5_000)
    running_job.wait_until_signals_are_handled()
    running_job.container.kill("SIGTERM")
    running_job.container.update(cpu_quota=-1)
    run = running_job.wait(timeout=25)
    assert run.exit_code in (0, 143), run.log
    assert "stopped by SIGTERM" in run.log
    assert run.failure is None


def test_jobs_start_with_an_entry_point_of_the_request(
    job: str, example: Example, prepared_layout: Layout, start_job: StartJob
) -> None:
    """A request's ContainerEntrypoint replaces the image's entry point. It can be `train` or `serve`, or call
    `python -m microjobs` for a processing job."""
    program = example.arguments[:1]
    if program in (["train"], ["serve"]):
        running_job = start_job(job, [], prepared_layout.root, entrypoint=program)
    else:
        running_job = start_job(job, example.arguments, prepared_layout.root, entrypoint=["python", "-m", "microjobs"])
    if example.is_server:
        running_job.wait_until(lambda: answers_ping(running_job), "200 on /ping", timeout=60)
        running_job.stop(timeout=30)
    assert running_job.wait().exit_code == 0


def test_help_names_every_hyperparameter(job: str, root: Path, run_job: RunJob) -> None:
    run = run_job(job, ["--help"], root)
    assert "usage:" in run.log
    for item in list_declared_hyperparameters(job):
        assert item["name"] in run.log


def list_declared_hyperparameters(job: str) -> list[dict[str, Any]]:
    program = CONTAINERS / job / make_package_name(job) / "hyperparameters.py"
    if not program.exists():
        return []
    description = describe(runpy.run_path(str(program))["Hyperparameters"])  # a new job is not on the tests' path
    as_json: list[dict[str, Any]] = json.loads(json.dumps(description))
    return as_json


def test_labels_describe_the_image(job: str, get_image_attributes: GetImageAttributes) -> None:
    labels = get_image_attributes(job)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"microjobs/{job}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.source"].startswith("https://")
    assert labels["org.opencontainers.image.revision"]
    assert json.loads(labels.get("org.microjobs.hyperparameters", "[]")) == list_declared_hyperparameters(job)


def test_labels_of_images_that_serve_declare_their_capabilities(
    job: str, get_image_attributes: GetImageAttributes
) -> None:
    labels = get_image_attributes(job)["Config"]["Labels"]
    names = ("accept-bind-to-port", "multi-models")
    declared = {name for name in names if labels.get(f"com.amazonaws.sagemaker.capabilities.{name}") == "true"}
    can_serve = any((CONTAINERS / job).rglob("model_source.py"))
    assert declared == ({*names} if job == "serve" else {"accept-bind-to-port"} if can_serve else set())


def test_image_has_no_build_tools_caches_tests_or_locks(job: str, root: Path, run_job: RunJob) -> None:
    command = (
        "for tool in gcc cc uv; do command -v $tool; done; find / -xdev"
        r" \( -path /proc -o -path /sys -o -path /opt/venv/lib/python3.11/site-packages/pip \) -prune -o"
        r" \( -name tests -path '/opt/*' -o -name '*.lock' -path '/opt/microjobs/*' -o -name '*.deb'"
        r" -o -path '/var/lib/apt/lists/*_*' -o -path '/root/.cache/*' -o -path '/opt/installer*'"
        r" -o -name ca-certificates.crt -path '/local-packages/*' \) -print"
    )
    run = run_job(job, ["-c", command], root, entrypoint="sh", exit_code=0)
    assert run.log.split() == []


def test_entrypoint_is_in_exec_form_and_no_user_is_set(job: str, get_image_attributes: GetImageAttributes) -> None:
    config = get_image_attributes(job)["Config"]
    unset_options = [argument for name in SYS_EXECUTABLE_VARIABLES for argument in ("-u", name)]
    assert config["Entrypoint"] == ["/usr/bin/env", *unset_options, "/opt/venv/bin/python", FLAGS, "-m", "microjobs"]
    assert not config["User"]  # SageMaker runs containers as root


def test_no_secret_or_index_address_is_in_the_history(
    job: str, get_image_attributes: GetImageAttributes, engine: Any
) -> None:
    history = json.dumps(engine.images.get(get_image_attributes(job)["Id"]).history())
    environment = " ".join(get_image_attributes(job)["Config"]["Env"])
    for word in ("INDEX_URL", "simple", "SECRET", "TOKEN", "PASSWORD"):  # the address of an index ends with /simple
        assert word.upper() not in history.upper()
        assert word not in environment


def test_image_size_is_limited(job: str, example: Example, get_image_attributes: GetImageAttributes) -> None:
    if example.max_megabytes is None:
        pytest.skip("the example has no limit")
    assert get_image_attributes(job)["Size"] / 1e6 <= example.max_megabytes


def test_images_share_layers(job: str, get_image_attributes: GetImageAttributes) -> None:
    layers = {name: get_image_attributes(name)["RootFS"]["Layers"] for name in JOBS}
    common = set.intersection(*(set(digests) for digests in layers.values()))
    base, packages, *_ = layers[job]
    # the common layers include the base image, and the packages that shared/microjobs imports
    assert {base, packages} <= common
    assert len(common) >= 3  # the common layers also include shared/microjobs
