"""What a run has done, in a small file, so that `--resume` can go on from there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from microjobs.files import write_text
from microjobs_orchestrator.failures import UsageError


@dataclass
class JournalEntry:
    """A step that was started: a job, or a value that was computed."""

    step: str
    title: str
    kind: str
    """The word of the job's kind; empty for a value."""
    name: str
    seconds: float | None = None
    """How long it took; None while it goes on."""
    value: Any = None


@dataclass
class Journal:
    """A run's file, `runs/<id>.json`. Every change is written at once, whole."""

    path: Path
    id: str
    workflow: str
    options: dict[str, Any]
    on: str = "here"
    """The backend: `here` or `aws`."""
    base: str = ""
    """On AWS: the S3 address below which its data lies."""
    attempt: int = 1
    finished: bool = False
    endpoint: str | None = None
    """An endpoint that is up, to be deleted whatever happens."""
    spent: float = 0.0
    """Dollars of all attempts, as far as prices are known."""
    unpriced: list[str] = field(default_factory=list)
    """Instance types whose price is not known, so that `spent` lacks them."""
    steps: list[JournalEntry] = field(default_factory=list)

    @classmethod
    def new(
        cls, folder: Path, workflow: str, options: Mapping[str, Any], on: str = "here", base: str = ""
    ) -> "Journal":
        """A new run, named by its workflow and the time."""
        stem = f"{workflow}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10):  # runs that start in the same second
            name = stem if number == 1 else f"{stem}{'abcdefghi'[number - 1]}"
            path = folder / f"{name}.json"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            journal = cls(path, name, workflow, dict(options), on, base)
            journal.save()
            return journal
        raise UsageError(f"{folder} already has nine runs of this second, {stem}: start the next one a second later")

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Read a run's file.

        Raises:
            UsageError: it is not one.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["steps"] = [JournalEntry(**step) for step in content["steps"]]
            return cls(path=path, **content)
        except FileNotFoundError:
            raise UsageError(
                f"there is no run {path.stem} in {path.parent}: leave the name out for the last one"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{path} is not the journal of a run ({error}): start a new run") from error

    def save(self) -> None:
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        write_text(self.path, json.dumps(content, indent=1))

    def add_cost(self, instance_type: str, dollars: float | None) -> None:
        """Add what instances of a type cost."""
        if dollars is None and instance_type not in self.unpriced:
            self.unpriced.append(instance_type)
        self.spent += dollars or 0.0
        self.save()

    def step(self, step: str) -> JournalEntry | None:
        return next((done for done in self.steps if done.step == step), None)

    def drop_from(self, number: int) -> None:
        """Forget a step and all later ones, which built on it."""
        del self.steps[number:]
        self.save()


def last_unfinished(folder: Path, workflow: str) -> Path:
    """The newest run of a workflow that did not come to its end.

    Raises:
        UsageError: there is none.
    """
    for path in sorted(folder.glob(f"{workflow}-*.json"), key=lambda path: path.stem, reverse=True):
        try:
            finished = not path.stat().st_size or Journal.read(path).finished
        except (UsageError, OSError):  # damaged: it cannot be resumed, but one before it can
            continue
        if not finished:
            return path
    raise UsageError(f"no run of {workflow} in {folder} is unfinished: leave --resume out to start one")
