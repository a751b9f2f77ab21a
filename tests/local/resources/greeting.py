"""The resource family Greeting, which exists only in tests: its botocore model, and a copy of the repository for it.

botocore merges `service-2.sdk-extras.json` below `~/.aws/models` into its own model. A server or a client therefore
knows the operations if its HOME contains this file.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.local.runtimes.processes import make_tiny_repository

STATUSES = ["InProgress", "Stopping", "Completed", "Failed", "Stopped"]
TEXT: dict[str, Any] = {"shape": "String256"}
TIME: dict[str, Any] = {"shape": "Timestamp"}
SUMMARY_MEMBERS: dict[str, Any] = {
    "GreetingName": TEXT,
    "GreetingArn": TEXT,
    "GreetingStatus": {"shape": "GreetingStatus"},
    "CreationTime": TIME,
    "LastModifiedTime": TIME,
}
LIST_MEMBERS: dict[str, Any] = {
    **dict.fromkeys(("SortBy", "SortOrder", "NextToken", "NameContains"), TEXT),
    **{f"{name}Time{edge}": TIME for name in ("Creation", "LastModified") for edge in ("Before", "After")},
    "MaxResults": {"shape": "MaxResults"},
    "StatusEquals": {"shape": "GreetingStatus"},
}


def _make_structure(members: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "structure", "required": list(required), "members": members}


NAME_MEMBER = {"GreetingName": TEXT}
SHAPES: dict[str, Any] = {
    "GreetingStatus": {"type": "string", "enum": STATUSES},
    "GreetingList": {"type": "list", "member": {"shape": "GreetingSummary"}},
    "GreetingSummary": _make_structure(SUMMARY_MEMBERS),
    "CreateGreetingRequest": _make_structure(
        {**NAME_MEMBER, "Text": TEXT, "Language": TEXT, "Tags": {"shape": "TagList"}}, "GreetingName", "Text"
    ),
    "CreateGreetingResponse": _make_structure({"GreetingArn": TEXT}),
    "DescribeGreetingRequest": _make_structure(NAME_MEMBER, "GreetingName"),
    "DescribeGreetingResponse": _make_structure(
        {**SUMMARY_MEMBERS, "Text": TEXT, "StartTime": TIME, "EndTime": TIME, "FailureReason": TEXT}
    ),
    "ListGreetingsRequest": _make_structure(LIST_MEMBERS),
    "ListGreetingsResponse": _make_structure({"GreetingSummaries": {"shape": "GreetingList"}, "NextToken": TEXT}),
    "StopGreetingRequest": _make_structure(NAME_MEMBER, "GreetingName"),
    "DeleteGreetingRequest": _make_structure(NAME_MEMBER, "GreetingName"),
}


def _make_operation(name: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"name": name, "http": {"method": "POST", "requestUri": "/"}}
    operation["input"] = {"shape": f"{name}Request"}
    return operation | ({"output": {"shape": f"{name}Response"}} if f"{name}Response" in SHAPES else {})


OPERATIONS = ("CreateGreeting", "DescribeGreeting", "ListGreetings", "StopGreeting", "DeleteGreeting")
EXTRAS = {
    "version": 1.0,
    "merge": {"operations": {name: _make_operation(name) for name in OPERATIONS}, "shapes": SHAPES},
}


class RepositoryCopy:
    """A copy of the repository, whose programs have a HOME with the model of `Greeting`."""

    def __init__(self, parent_folder: Path) -> None:
        self.folder = parent_folder / "repository"
        make_tiny_repository(parent_folder, "")
        ignored = shutil.ignore_patterns("*.pyc.*")  # temporary files, which another process may rename during the copy
        for name in ("orchestrator", "scripts", "tests"):
            shutil.copytree(REPOSITORY / name, self.folder / name, ignore=ignored)
        (self.folder / "microjobs_orchestrator").symlink_to("orchestrator")
        (self.folder / "docs" / "maintaining").mkdir(parents=True)
        self.models = parent_folder / "user" / ".aws" / "models"
        self.microjobs_home = parent_folder / "user" / "home"
        model_folder = self.models / "sagemaker" / "2017-07-24"
        model_folder.mkdir(parents=True)
        (model_folder / "service-2.sdk-extras.json").write_text(json.dumps(EXTRAS))
        shutil.copy(REPOSITORY / "pyproject.toml", self.folder)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a module of the copy, such as `microjobs_orchestrator.cli ps`."""
        environment = {
            **os.environ,
            "HOME": str(self.models.parents[1]),
            "MICROJOBS_HOME": str(self.microjobs_home),
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(REPOSITORY / "shared")]),
        }
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, check=check, capture_output=True, text=True)

    def microjobs(self, *arguments: str) -> str:
        """Run a command of `microjobs`; return its output."""
        return self.run("microjobs_orchestrator.cli", *arguments).stdout
