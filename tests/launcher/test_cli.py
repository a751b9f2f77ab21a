"""Tests of the command line, with AWS's services in memory."""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError
from docker.errors import DockerException

from microjobs_orchestrator import images, launch
from microjobs_orchestrator.cli import describe_error, main
from microjobs_orchestrator.failures import JobFailedError, UsageError
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import HOME_VARIABLE
from microjobs_orchestrator.runs import backend, home_view
from microjobs_orchestrator.runs.backend_view import BackendView
from tests.conftest import REPOSITORY
from tests.launcher.cloud import Cloud, Members

Microjobs = Callable[..., int]


@pytest.fixture
def microjobs(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Microjobs:
    """Return a function that runs `microjobs` with its arguments, and returns the exit code."""

    @contextmanager
    def open_backend(*_: object) -> Iterator[backend.Backend]:
        yield cloud.make_backend()

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(backend, "open_local_backend", open_backend)
    monkeypatch.setattr(launch, "open_local_backend", open_backend)
    monkeypatch.setattr(home_view, "HomeView", lambda _home: BackendView(cloud.make_backend(), "memory"))
    return lambda *words: main(words)


def find_runs_folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "runs"


def test_run_ends_with_summary_and_report(
    microjobs: Microjobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microjobs("run", "housing") == 0
    output = capsys.readouterr().out
    assert "Test MSE, tuned" in output
    (report,) = find_runs_folder(tmp_path).glob("*/report.html")
    assert "Test MSE : 0.25" in report.read_text()
    assert report.name in output


def test_straight_line_prints_its_table(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert microjobs("run", "straight-line") == 0
    output = capsys.readouterr().out
    assert "\nEpoch: 0 | Train loss: 0.757 | Test loss: 0.725\n" in output
    assert "0.3000" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "housing", "--no-tunning"), "unrecognized arguments: --no-tunning: did you mean --no-tuning?"),
        (("run", "housing", "--nodes", "3"), "unrecognized arguments: --nodes 3: microjobs run housing --help lists"),
        (("ps", "--xyz=docker", "x"), "unrecognized arguments: --xyz=docker x: microjobs ps --help lists"),
        (
            ("local", "up", "--prot", "1"),
            "microjobs local up: error: unrecognized arguments: --prot 1: did you mean --port?",
        ),
    ],
)
def test_unknown_option_is_an_error_with_a_similar_option_or_the_help(
    words: tuple[str, ...], message: str, microjobs: Microjobs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        microjobs(*words)
    assert message in capsys.readouterr().err


def test_failed_step_reports_reason_and_how_to_resume(
    microjobs: Microjobs, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.failure_reasons["scale"] = "x_train row 3 holds NaN"
    assert microjobs("run", "housing") == 1
    captured = capsys.readouterr()
    assert "is Failed: x_train row 3 holds NaN\n  | Epoch: 0" in captured.err
    assert "microjobs run housing --resume" in captured.out


def test_resume_keeps_the_options_of_the_run(microjobs: Microjobs, cloud: Cloud) -> None:
    cloud.failure_reasons["train"] = "no luck"
    assert microjobs("run", "housing", "--no-tuning", "--instance-count", "2") == 1
    cloud.failure_reasons.clear()
    assert microjobs("run", "housing", "--resume") == 0
    assert cloud.find_requests("CreateHyperParameterTuningJob") == []
    assert len(cloud.find_requests("CreateProcessingJob")) == 3


def test_resume_with_other_options_fails(
    microjobs: Microjobs, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.failure_reasons["train"] = "no luck"
    microjobs("run", "housing", "--epochs", "5")
    assert microjobs("run", "housing", "--resume", "--epochs", "6") == 2
    assert "was started with epochs 5, not 6" in capsys.readouterr().err


def test_finished_run_is_not_resumed(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    microjobs("run", "straight-line")
    assert microjobs("run", "straight-line", "--resume") == 2
    assert "has no unfinished run of straight-line" in capsys.readouterr().err


def test_interrupted_run_exits_with_130(microjobs: Microjobs, cloud: Cloud) -> None:
    cloud.on_describe = raise_interrupt
    assert microjobs("run", "housing") == 130


def raise_interrupt(_name: str) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_during_the_imports_exits_with_130_and_prints_nothing() -> None:
    program = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'microjobs_orchestrator.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from microjobs_orchestrator.__main__ import main\n"
        "sys.exit(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_data_file_needs_x_and_y(microjobs: Microjobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    assert microjobs("run", "housing", "--data", str(tmp_path / "data.npz")) == 2
    assert "contains x.npy: add arrays x and y" in capsys.readouterr().err
    assert microjobs("run", "housing", "--data", str(tmp_path / "no.npz")) == 2
    assert "no.npz: No such file or directory: choose an .npz file with arrays x and y" in capsys.readouterr().err


def test_missing_images_are_reported_before_the_first_job(
    microjobs: Microjobs, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend_with_images = replace(cloud.make_backend(), needs_images=True)
    monkeypatch.setattr(launch, "open_local_backend", lambda *_: nullcontext(backend_with_images))
    monkeypatch.setattr(
        images, "read_image_labels", lambda: {"microjobs/serve:dev": {}, "microjobs/preprocess:dev": {}}
    )
    assert microjobs("run", "straight-line") == 1
    assert "run `microjobs build train-pytorch batch-score`" in capsys.readouterr().err
    assert cloud.requests == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["run", "houses"],
        ["run", "housing", "--instance-count", "0"],
        ["run", "housing", "--framework", "jax"],
        ["run", "straight-line", "--data", "x.npz"],
        ["logs"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "usage: microjobs" in capsys.readouterr().err


def test_ps_lists_all_kinds_newest_first(
    microjobs: Microjobs, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    microjobs("run", "housing")
    cloud.make_backend().sagemaker.create_endpoint(EndpointName="mine", EndpointConfigName="mine")
    capsys.readouterr()
    assert microjobs("ps") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "STATUS", "AGE", "TOOK"]
    assert lines[1].split()[:3] == ["endpoint", "mine", "Creating"]
    assert {line.split()[0] for line in lines[1:]} == {"processing", "training", "tuning", "endpoint"}
    assert microjobs("ps", "--running") == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [["endpoint", "mine", "Creating"]]


def test_logs_finds_a_job_by_its_name(microjobs: Microjobs, cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    microjobs("run", "straight-line")
    job = cloud.find_requests("CreateTrainingJob")[0]["TrainingJobName"]
    capsys.readouterr()
    assert microjobs("logs", "-f", job) == 0
    assert capsys.readouterr().out == "algo-1  Epoch: 0 | Train loss: 0.757 | Test loss: 0.725\nalgo-1  done\n"


def test_logs_of_an_unknown_job_exits_with_2(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert microjobs("logs", "nothing") == 2
    assert "no job or endpoint in memory is called nothing" in capsys.readouterr().err


def test_stop_stops_a_job_and_deletes_an_endpoint(
    microjobs: Microjobs, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.resources["TransformJob", "slow"] = {"TransformJobStatus": "InProgress"}
    cloud.resources["Endpoint", "mine"] = {"EndpointStatus": "InService"}
    assert microjobs("stop", "slow") == 0
    assert microjobs("stop", "mine") == 0
    assert cloud.resources == {("TransformJob", "slow"): {"TransformJobStatus": "Stopped"}}
    assert microjobs("stop", "slow") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "transform slow is Stopped already"


def test_stop_reports_the_status_of_a_job_that_ended_before_the_request(
    microjobs: Microjobs, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.resources["TransformJob", "quick"] = {"TransformJobStatus": "InProgress"}

    def refuse(noun: str, name: str, _members: object) -> Members:
        cloud.resources[noun, name][f"{noun}Status"] = "Failed"
        raise ServiceError("ValidationException", "it is Failed")

    monkeypatch.setattr(cloud, "_stop", refuse)
    assert microjobs("stop", "quick") == 0
    assert capsys.readouterr().out == "transform quick is Failed already\n"


REFUSED_ERROR: Any = {"Error": {"Code": "ValidationException", "Message": "1 validation error"}}
EXPIRED_ERROR: Any = {"Error": {"Code": "ExpiredTokenException", "Message": "expired"}}
DENIED_ERROR: Any = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}


@pytest.mark.parametrize(
    ("error", "output"),
    [
        (ClientError(REFUSED_ERROR, "CreateModel"), "CreateModel: 1 validation error"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), "Could not connect"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), "check the network"),
        (ClientError(EXPIRED_ERROR, "ListEndpoints"), "ListEndpoints: expired: `aws sso login`, or `aws configure`"),
        (ClientError(DENIED_ERROR, "ListEndpoints"), "`microjobs doctor --on aws` shows"),
        (NoRegionError(), "AWS_DEFAULT_REGION"),
        (DockerException("no engine"), "no engine"),
        (DockerException("Error while fetching server API version: x"), "no Docker engine answers"),
        (UsageError("--x is wrong"), "--x is wrong"),
        (JobFailedError("Training", "job", "Failed", "why", ("a", "b")), "Training (job) is Failed: why\n  | a\n  | b"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: '/x'"),
    ],
)
def test_description_of_an_expected_error_has_the_reason_or_a_remedy(error: Exception, output: str) -> None:
    assert output in (describe_error(error, Namespace()) or "")


def test_bug_keeps_its_traceback() -> None:
    assert describe_error(KeyError("x"), Namespace()) is None


def test_parser_is_made_without_importing_a_large_package() -> None:
    program = (
        "import sys; from microjobs_orchestrator.cli import make_parser; make_parser();"
        "print([name for name in ('boto3', 'docker', 'numpy', 'optuna', 'rich') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
