"""Tests that a new workflow is one file: `microjobs run` finds it, and its options, requests and results need no
further edit."""

import json
from pathlib import Path

import pytest

from microjobs_orchestrator import workflows
from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local.home import HOME_VARIABLE
from tests.launcher.cloud import Cloud
from tests.launcher.test_cli import Microjobs, microjobs

__all__ = ["microjobs"]

WORKFLOW_MODULE = '''"""Count the shards of a data set."""

from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from microjobs.hyperparameters import parameter
from microjobs_orchestrator.runs import outputs, steps
from microjobs_orchestrator.runs.workflow import Location, RunResults
from microjobs_orchestrator.runs.workflow import Workflow, file_option


@dataclass(frozen=True)
class Options:
    shards: int = parameter(2, "shards of each array", minimum=1)
    noisy: bool = parameter(False, "add noise")
    notes: str = file_option("a file of notes")

    @property
    def jobs(self):
        return ("preprocess",)


@dataclass(frozen=True)
class Count:
    files: int

    def for_terminal(self):
        return Text(f"{self.files} files were made")

    def to_html(self):
        return f"<p>{self.files} files on the page</p>"


def plan_requests(context, options):
    arguments = ["straight-line", "--shards", str(options.shards), *(["--noise"] if options.noisy else [])]
    return [steps.plan_raw_data(context, arguments)]


def run_steps(run, options, folder):
    run.run_job(*plan_requests(run, options))
    uri = run.uri("raw")
    files = len(list(outputs.download(run.backend, uri, folder / "raw").iterdir()))
    return RunResults("shard-count", [Count(files)], [Location("data", uri)])


WORKFLOW = Workflow(Options, run_steps, plan_requests)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder. `microjobs` also searches its subfolder `workflows`, which contains one workflow."""
    (tmp_path / "workflows" / "shard_count.py").parent.mkdir()
    (tmp_path / "workflows" / "shard_count.py").write_text(WORKFLOW_MODULE)
    monkeypatch.setattr(workflows, "__path__", [*workflows.__path__, str(tmp_path / "workflows")])
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_workflow_is_listed_with_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "shard-count" in (text := capsys.readouterr().out)
    assert "Count the shards of a data set" in text


def test_options_are_flags_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "shard-count", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--shards N shards of each array (default: 2)" in text
    assert "--noisy, --no-noisy add noise (default: no)" in text
    assert "--notes FILE a file of notes" in text


@pytest.mark.parametrize(("value", "reason"), [("0", "is below the minimum of 1"), ("two", "is not a whole number")])
def test_value_outside_of_its_declaration_is_refused(
    value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["run", "shard-count", "--shards", value])
    assert error.value.code == 2
    assert f"argument --shards: '{value}' {reason}" in capsys.readouterr().err


def test_dry_run_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "shard-count", "--noisy", "--on", "aws", "--dry-run"]) == 0
    (request,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert request["ProcessingJobName"] == "shard-count-dry-run-raw"
    assert request["AppSpecification"]["ContainerArguments"] == ["dataset", "straight-line", "--shards", "2", "--noise"]


def test_results_are_shown_as_the_workflow_declares(
    microjobs: Microjobs, cloud: Cloud, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microjobs("run", "shard-count", "--shards", "3", "--notes", "notes.txt") == 0
    # The fake of AWS always writes two files for the output `raw`.
    assert "\n2 files were made\n" in capsys.readouterr().out
    (page,) = (folder / "home" / "runs").glob("*/report.html")
    assert "<p>2 files on the page</p>" in page.read_text()
    (journal,) = (folder / "home" / "runs").glob("*.json")
    assert json.loads(journal.read_text())["options"] == {"shards": 3, "notes": str(folder / "notes.txt")}
    assert len(cloud.find_requests("CreateProcessingJob")) == 1
