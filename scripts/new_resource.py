"""Creates the folder and the example request of a resource family. The new family passes the tests of all families.

    python -m scripts.new_resource NAME

NAME is the noun of the family's operations, in lower case with dashes: `auto-ml-job` for CreateAutoMLJob and
DescribeAutoMLJob.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.kinds import JobStatus, load_kinds
from microjobs_orchestrator.local.parity.common import LIST_ROWS, LIST_ROWS_WITH_STATUS
from microjobs_orchestrator.local.protocols.models import load_operation_model, load_service_model

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = REPOSITORY / "scripts" / "resource-template"
RESOURCES = REPOSITORY / "orchestrator" / "local" / "resources"
EXAMPLES = REPOSITORY / "tests" / "local" / "resources" / "examples"

VERBS = ("Describe", "List", "Stop", "Delete")


class Family:
    """The names of a family, and its operations in botocore's model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.package = name.replace("-", "_")
        self.constant = self.package.upper()
        self.noun = find_noun(name)
        self.verbs = [
            verb for verb in VERBS if self.operation_name(verb) in load_service_model("sagemaker").operation_names
        ]

    def operation_name(self, verb: str) -> str:
        return f"{verb}{self.noun}{'s' if verb == 'List' else ''}"

    def request_members(self, verb: str) -> dict[str, Any]:
        """Return the shapes of a request's members, by name."""
        shape: Any = load_operation_model("sagemaker", self.operation_name(verb)).input_shape
        return dict(shape.members)

    def response_members(self, verb: str) -> dict[str, Any]:
        shape: Any = load_operation_model("sagemaker", self.operation_name(verb)).output_shape
        return dict(shape.members)

    @property
    def statuses(self) -> list[str]:
        shape = self.response_members("Describe").get(f"{self.noun}Status")
        return list(shape.enum) if shape is not None else []

    @property
    def is_runnable(self) -> bool:
        """Whether the family can use the job of the template: Stop exists, and the statuses are those of jobs."""
        return "Stop" in self.verbs and set(JobStatus) <= set(self.statuses)


def find_noun(name: str) -> str:
    """Return the noun of a family, such as `AutoMLJob` for `auto-ml-job`.

    Raises:
        SystemExit: SageMaker has no such family.
    """
    created_nouns = [
        operation.removeprefix("Create")
        for operation in load_service_model("sagemaker").operation_names
        if "Create" in operation
    ]
    nouns = {"-".join(split_words(noun)): noun for noun in created_nouns}
    if name not in nouns:
        choices = ", ".join(sorted(candidate for candidate in nouns if find_obstacle(Family(candidate)) is None))
        sys.exit(f"new-resource: SageMaker has no resource {name!r}: choose from {choices}")
    return nouns[name]


def split_words(noun: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", noun)]


def format_kinds(family: Family) -> str:
    """Return the module that declares the kind."""
    lifecycle = ""
    if family.is_runnable:
        end_member = next((name for name in family.response_members("Describe") if name.endswith("EndTime")), "")
        lifecycle = f'lifecycle=Lifecycle(end_member="{end_member}", statuses={tuple(family.statuses)!r}),'
        lifecycle += f' logs=LogNames("/aws/sagemaker/{family.noun}s"),'
    list_member = next(
        (name for name, shape in family.response_members("List").items() if shape.type_name == "list"), ""
    )
    return (
        f'"""The kind {family.name}."""\n\n'
        f"from microjobs_orchestrator.local.kinds import Kind{', Lifecycle, LogNames' if lifecycle else ''}\n"
        f'\n{family.constant} = Kind(arn_type="{family.name}", noun="{family.noun}", title="{family.name}",'
        f" {lifecycle} verbs={tuple(family.verbs)!r},"
        f' summaries="{list_member}")\n'
    )


def format_parity(family: Family) -> str:
    """Return the module with the parity rows. The name and the tags are honoured. Other required members have no
    effect, and other optional members are refused, until they are implemented."""
    create_shape: Any = load_operation_model("sagemaker", f"Create{family.noun}").input_shape
    rows = "".join(f'    "{name}": {row},\n' for name, row in make_create_rows(family, create_shape))
    lists = "".join(f'        "{name}": {row},\n' for name, row in make_list_rows(family))
    return (
        f'"""Parity rows of the kind {family.name}."""\n\nfrom collections.abc import Mapping\n\n'
        "from microjobs_orchestrator.local.parity.common import TAGS\n"
        "from microjobs_orchestrator.local.parity.rows import Honoured, NoEffect, Refused, Rows\n\n"
        f"CREATE: Rows = {{\n{rows}}}\n\n"
        f'ROWS: Mapping[str, Rows] = {{\n    "Create{family.noun}": CREATE,\n'
        + (f'    "List{family.noun}s": {{\n{lists}    }},\n' if lists else "")
        + "}\n"
    )


def make_create_rows(family: Family, create_shape: Any) -> Iterator[tuple[str, str]]:
    for name in create_shape.members:
        if name == f"{family.noun}Name":
            yield name, "Honoured()"
        elif name == "Tags":
            yield name, "TAGS"
        elif name in create_shape.required_members:
            yield name, 'NoEffect("it is stored and described")'
        else:
            yield name, 'Refused("it is not supported yet")'


def make_list_rows(family: Family) -> Iterable[tuple[str, str]]:
    """Return the rows of the List operation, or none if the rows that derive from the kind cover all its members."""
    derived_rows = LIST_ROWS_WITH_STATUS if family.is_runnable else LIST_ROWS
    if family.request_members("List").keys() == derived_rows.keys():
        return []
    common_rows = LIST_ROWS_WITH_STATUS if family.statuses else LIST_ROWS
    refused = 'Refused("it is not supported yet")'
    return [(name, "Honoured()" if name in common_rows else refused) for name in family.request_members("List")]


def write_family(family: Family, folder: Path, example: Path) -> None:
    """Write the modules of a family, and the module with its example request."""
    folder.mkdir()
    (folder / "__init__.py").write_text(f'"""The resource family {family.name}."""\n')
    (folder / "kinds.py").write_text(format_kinds(family))
    (folder / "parity.py").write_text(format_parity(family))
    names = ("job.py", "operations.py") if family.is_runnable else ("operations_without_job.py",)
    targets = {name: folder / name.replace("_without_job", "") for name in names} | {"example.py": example}
    for source, target in targets.items():
        text = (TEMPLATE / source).read_text()
        text = text.replace("greetings", f"the kind {family.name}").replace("Greetings", f"The kind {family.name}")
        text = text.replace("Greeting", family.noun).replace("GREETING", family.constant)
        target.write_text(text.replace("greeting", family.package))


def find_obstacle(family: Family) -> str | None:
    """Return why the template cannot create the family, or None if it can."""
    supported = next((kind for kind in load_kinds() if kind.noun == family.noun), None)
    if supported is not None:
        return f"the local server already has the kind {supported.arn_type}"
    missing = next((verb for verb in ("Describe", "List") if verb not in family.verbs), None)
    if missing is not None:
        return f"SageMaker has no operation {family.operation_name(missing)}"
    if family.request_members("Describe").keys() != {f"{family.noun}Name"}:
        return f"{family.operation_name('Describe')} does not identify a resource by {family.noun}Name alone"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="new-resource", description="Create the folder of a resource family.")
    parser.add_argument("name", help="such as auto-ml-job")
    family = Family(parser.parse_args().name)
    folder, example = RESOURCES / family.package, EXAMPLES / f"{family.package}.py"
    for path in (folder, example):
        if path.exists():
            sys.exit(
                f"new-resource: {path.relative_to(REPOSITORY)} already exists: remove it to create the family again"
            )
    if (obstacle := find_obstacle(family)) is not None:
        sys.exit(f"new-resource: {obstacle}")
    try:
        write_family(family, folder, example)
        for command in (["format", "--quiet"], ["check", "--fix", "--quiet"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *command, folder, example], cwd=REPOSITORY, check=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        example.unlink(missing_ok=True)
        raise
    print(f"Created {folder.relative_to(REPOSITORY)} and {example.relative_to(REPOSITORY)}.")
    if not family.is_runnable:
        print(f"Create{family.noun} only stores a description: the template has no job for the statuses of this kind.")
    print("Next: make parity, and read docs/maintaining/adding-a-resource.md")


if __name__ == "__main__":
    main()
