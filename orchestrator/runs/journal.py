"""The journal of a run: a file with the run's options and steps. `--resume` continues after the finished steps."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from microjobs.files import write_text
from microjobs_orchestrator.failures import UsageError

SUFFIXES = ("", *"bcdefghi")
"""Suffixes of the names of runs that start in the same second."""


@dataclass
class JournalEntry:
    """A step that was started: a job, or a value that was computed."""

    step: str
    title: str
    kind: str
    """The noun of the job's kind, such as `TrainingJob`; empty for a value."""
    name: str
    """The name of the job; for a value, the name of the step."""
    seconds: float | None = None
    """The duration of the step; None until it has finished."""
    value: Any = None


@dataclass
class Journal:
    """The file `runs/<id>.json`. Each save replaces the file atomically."""

    path: Path
    id: str
    workflow: str
    options: dict[str, Any]
    on: str = "here"
    """The backend, as the flag `--on` names it: `here` (the local server) or `aws`."""
    base: str = ""
    """On AWS, the S3 URI of the folder with the data of all runs; otherwise empty."""
    attempt: int = 1
    """The number of times that the run was started or resumed. From 2 on, it is a part of the names of new jobs."""
    finished: bool = False
    execution: str = ""
    """The ARN of the pipeline execution that runs the steps; empty if the run creates its jobs itself."""
    endpoint: str | None = None
    """The name of an endpoint that the run must delete, even if a step fails."""
    spent: float = 0.0
    """The cost of all attempts in dollars, excluding the instance types in `unpriced`."""
    unpriced: list[str] = field(default_factory=list)
    """Instance types whose price is unknown."""
    steps: list[JournalEntry] = field(default_factory=list)

    @classmethod
    def new(
        cls, folder: Path, workflow: str, options: Mapping[str, Any], on: str = "here", base: str = ""
    ) -> "Journal":
        """Create a journal for a new run. The id of the run consists of the workflow and the time."""
        stem = f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in SUFFIXES:
            path = folder / f"{stem}{suffix}.json"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            journal = cls(path, path.stem, workflow, dict(options), on, base)
            journal.save()
            return journal
        raise UsageError(
            f"{folder} already has {len(SUFFIXES)} runs that started in this second, {stem}: start the next run a "
            "second later"
        )

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Read a journal. Raise UsageError if the file does not exist, or is not a journal."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["steps"] = [JournalEntry(**step) for step in content["steps"]]
            return cls(path=path, **content)
        except FileNotFoundError:
            raise UsageError(
                f"run {path.stem} does not exist in {path.parent}: omit the name to resume the last unfinished run"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{path} is not the journal of a run ({error}): start a new run") from error

    def save(self) -> None:
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        write_text(self.path, json.dumps(content, indent=1))

    @property
    def is_local(self) -> bool:
        """Whether the backend is the local server."""
        return self.on == "here"

    @property
    def finished_steps(self) -> set[str]:
        return {entry.step for entry in self.steps if entry.seconds is not None}

    @property
    def seconds(self) -> float:
        """The total duration of the finished steps."""
        return sum(entry.seconds or 0.0 for entry in self.steps)

    def find_entry(self, step: str) -> JournalEntry | None:
        return next((entry for entry in self.steps if entry.step == step), None)

    def add_cost(self, instance_type: str, dollars: float | None) -> None:
        """Add the cost of instances. None means that the price of the instance type is unknown."""
        if dollars is None and instance_type not in self.unpriced:
            self.unpriced.append(instance_type)
        self.spent += dollars or 0.0
        self.save()


def find_last_unfinished(folder: Path, workflow: str) -> Path:
    """Return the path of a workflow's newest journal whose run has not finished. Raise UsageError if there is none."""
    for path in sorted(folder.glob(f"{workflow}-*.json"), key=lambda path: path.stem, reverse=True):
        try:
            finished = not path.stat().st_size or Journal.read(path).finished
        except (UsageError, OSError):
            continue
        if not finished:
            return path
    raise UsageError(f"{folder} has no unfinished run of {workflow}: omit --resume to start a new run")
