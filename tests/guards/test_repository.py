"""Conventions of the repository, as quick tests."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from microjobs import contract
from microjobs.contract import DEFAULT_ROOT, Layout
from microjobs.run import make_package_name
from tests import order
from tests.conftest import CONTAINERS, JOBS, REPOSITORY, list_tracked_files

CONTRACT = REPOSITORY / "shared" / "microjobs" / "contract.py"
README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md"), *CONTAINERS.glob("*/README.md")]
EXAMPLE = REPOSITORY / "docs" / "using" / "example"
COMPOSE_FILES = sorted(REPOSITORY.glob("docker-compose*.yml"))
CODE_SUFFIXES = {".py", ".sh", ""}


def list_absolute_tracked_paths() -> list[Path]:
    return [REPOSITORY / path for path in list_tracked_files()]


def test_files_of_the_test_order_exist() -> None:
    assert [name for name in order.SLOW_FILES if not (REPOSITORY / name).exists()] == []


def test_processes_of_tests_store_bytecode() -> None:
    command = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    assert not sys.dont_write_bytecode


def test_contract_root_is_defined_once() -> None:
    files = [
        path
        for path in list_absolute_tracked_paths()
        if path.suffix in CODE_SUFFIXES
        and path.name not in ("LICENSE", "Makefile")
        and EXAMPLE not in path.parents  # the example is the code of a user
        and DEFAULT_ROOT in path.read_text()
    ]
    assert files == [CONTRACT]


def list_mount_targets(compose: Path) -> list[str]:
    return re.findall(rf"{DEFAULT_ROOT}/[\w./-]*\w", "\n".join(_read_uncommented_lines(compose)))


def _read_uncommented_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.parametrize("compose", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_mounts_only_paths_of_the_contract(compose: Path) -> None:
    layout = Layout()
    allowed = {
        layout.to_contract_path(path)
        for path in (
            layout.model,
            layout.output,
            layout.job_secret.parent,
            layout.channel("train"),
            layout.channel("test"),
            layout.processing_config / "resourceconfig.json",
            layout.processing_config / "processingjobconfig.json",
            *(
                layout.input_config / f"{name}.json"
                for name in ("hyperparameters", "inputdataconfig", "resourceconfig")
            ),
            *(layout.processing(name) for name in ("input", "output", "train", "test", "batch", "model")),
        )
    }
    assert set(list_mount_targets(compose)) <= allowed


def test_names_in_the_contract_module_are_documented() -> None:
    page = (REPOSITORY / "docs" / "maintaining" / "contract.md").read_text()
    code = CONTRACT.read_text()
    names = set(re.findall(r'"((?:SAGEMAKER|TRAINING|AWS)_\w+)"', code)) | set(re.findall(r'"(\w+\.json)"', code))
    assert len(names) > 10
    assert [name for name in sorted(names) if name not in page] == []


def list_make_targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text()
    return {target for line in re.findall(r"^([a-z][\w/% -]*):(?!=)", text, re.MULTILINE) for target in line.split()}


def is_make_target(word: str) -> bool:
    patterns = (re.escape(target).replace("%", r"[\w-]+") for target in list_make_targets())
    return any(re.fullmatch(pattern, word) for pattern in patterns)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_make_commands_in_pages_exist(page: Path) -> None:
    commands = re.findall(r"(?:^ {4}|`|\n|sudo |=\S+ )make((?: [a-z][\w/-]*)+)", page.read_text())
    unknown = [word for command in commands for word in command.split() if not is_make_target(word)]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_compose_files_in_pages_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    files = re.findall(r"docker-compose[\w.-]*\.yml", text)
    missing_files = [link for link in links if not (page.parent / link).exists()]
    missing_files += [name for name in files if not (REPOSITORY / name).exists()]
    assert missing_files == []


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_anchors_in_links_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
    missing_anchors = [
        f"{file}#{name}" for file, name in links if name not in list_anchors(page.parent / file if file else page)
    ]
    assert missing_anchors == []


WRAPPED_PAGES = [page for page in PAGES if page.name != "parity.md" and CONTAINERS not in page.parents]


@pytest.mark.parametrize("page", WRAPPED_PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_prose_is_wrapped(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).splitlines()
    long_lines = [line for line in prose if len(line) > 120 and not line.startswith(("|", "    "))]
    assert [line for line in long_lines if "](" not in line] == []


def test_readme_starts_with_a_quick_start() -> None:
    first_screen = README.read_text().splitlines()[:25]
    assert "    make run" in first_screen[:10]
    assert any("Test MSE" in line for line in first_screen)


def test_no_file_lists_all_jobs() -> None:
    files = [
        REPOSITORY / "Makefile",
        REPOSITORY / ".ci" / "run",
        REPOSITORY / "tests" / "conftest.py",
        REPOSITORY / "tests" / "images" / "test_every_image.py",
        CONTAINERS / "Dockerfile",
        *(REPOSITORY / "scripts").glob("*"),
        *(REPOSITORY / ".github").rglob("*.yml"),
    ]
    for path in (path for path in files if path.is_file()):
        jobs = [job for job in JOBS if re.search(rf"\b{job}\b", "\n".join(_read_uncommented_lines(path)))]
        assert len(jobs) < 3, f"{path} names {jobs}"


@pytest.mark.parametrize("job", JOBS)
def test_job_folder_is_complete(job: str) -> None:
    folder = CONTAINERS / job
    main = f"{make_package_name(job)}/main.py"
    required = (main, "image.yml", "cpu.in", "cpu.lock", "README.md", "tests/example.py")
    assert [name for name in required if not (folder / name).is_file()] == []
    assert len((folder / main).read_text().splitlines()) <= 120
    assert list(yaml.safe_load((folder / "image.yml").read_text())["services"]) == [job]


@pytest.mark.parametrize(
    "source", sorted(CONTAINERS.glob("*/c*.in")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_locked_package_has_a_version_and_a_hash(source: Path) -> None:
    lock = source.with_suffix(".lock").read_text()
    packages = re.findall(r"^([\w.-]+(?:\[[\w,-]+\])?==[^ ]+) \\\n {4}--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    lines = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(packages) == len(lines)


def test_locks_use_the_shared_versions() -> None:
    pins = re.compile(r"^([\w.-]+)==([^ ]+)", re.MULTILINE)
    shared = dict(pins.findall((REPOSITORY / "shared" / "requirements.lock").read_text()))
    for lock in CONTAINERS.glob("*/*.lock"):
        for name, version in pins.findall(lock.read_text()):
            assert shared.get(name, version) == version, f"{lock}: {name}"


def test_hyperparameter_labels_are_up_to_date() -> None:
    files = [CONTAINERS / job / "image.yml" for job in JOBS]
    texts = {path: path.read_text() for path in files}
    try:
        subprocess.run([sys.executable, "scripts/labels.py"], cwd=REPOSITORY, check=True)
        stale = [path.parent.name for path in files if path.read_text() != texts[path]]
    finally:
        for path, text in texts.items():
            path.write_text(text)
    assert stale == [], "run: make labels"


def test_public_ci_calls_only_the_makefile() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    assert all(is_make_target(command.removeprefix("make ").split()[0]) for command in commands)


def find_lost_strings(path: Path) -> Iterator[str]:
    """Yield the place of each string that is a statement after an assignment, but was meant as a part of the value."""
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None) if not isinstance(node, ast.ClassDef | ast.Module) else None
        for statement, next_statement in pairwise(body if isinstance(body, list) else ()):
            is_local = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            if is_local and isinstance(next_statement, ast.Expr) and isinstance(next_statement.value, ast.Constant):
                yield f"{path.name}:{next_statement.lineno}"


def test_no_part_of_a_string_is_a_statement() -> None:
    modules = [path for path in list_absolute_tracked_paths() if path.suffix == ".py"]
    assert [place for path in modules for place in find_lost_strings(path)] == []


def test_modules_have_at_most_400_lines() -> None:
    """The limit also applies to the modules that tests import, but not to files of tests, which are lists of cases."""
    modules = [
        path for path in list_absolute_tracked_paths() if path.suffix == ".py" and not path.name.startswith("test_")
    ]
    assert [path.name for path in modules if len(path.read_text().splitlines()) > 400] == []


def test_no_credentials_are_in_the_repository() -> None:
    credentials = re.compile(rb"AKIA(?!\w*(EXAMPLE|PLANTED))[0-9A-Z]{16}|BEGIN (RSA |EC )?PRIVATE KEY")
    assert [
        path
        for path in list_absolute_tracked_paths()
        if path.suffix != ".lock" and credentials.search(path.read_bytes())
    ] == []


def read_compose_configs(compose: Path) -> dict[str, Any]:
    """Return the configuration files of the jobs in a Compose file, with default settings."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", compose.read_text())
    text = text.replace("!override", "")
    return {name: json.loads(item["content"]) for name, item in (yaml.safe_load(text).get("configs") or {}).items()}


@pytest.mark.parametrize("compose", COMPOSE_FILES, ids=lambda path: path.name)
def test_configuration_in_compose_files_matches_the_contract(compose: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name, content in read_compose_configs(compose).items():
        if name.endswith("hyperparameters"):
            contract.write_hyperparameters(layout, content)
            config_file = layout.input_config / "hyperparameters.json"
        elif name == "inputdataconfig":
            contract.write_input_data_config(layout, dict.fromkeys(content, contract.Channel()))
            config_file = layout.input_config / "inputdataconfig.json"
        elif name == "training-resourceconfig":
            resources = contract.ResourceConfig(instance_type="ml.m5.large")
            contract.write_training_resource_config(layout, resources)
            config_file = layout.input_config / "resourceconfig.json"
        elif name.endswith("resourceconfig"):
            resources = contract.ResourceConfig(content["current_host"], tuple(content["hosts"]))
            contract.write_processing_resource_config(layout, resources)
            config_file = layout.processing_config / "resourceconfig.json"
        else:
            contract.write_processing_job_config(layout, content, content["ProcessingJobArn"])
            config_file = layout.processing_config / "processingjobconfig.json"
        assert content == json.loads(config_file.read_text()), name


def test_installed_packages_begin_with_the_projects_name() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    paths = [wheel["sources"].get(path, path) for path in wheel["only-include"]]
    assert {Path(path).parts[0] for path in paths} == {"microjobs", "microjobs_orchestrator"}
    assert all((REPOSITORY / path).exists() for path in wheel["only-include"])


def test_code_imports_the_orchestrator_by_its_installed_name() -> None:
    imports = re.compile(r"^\s*(from|import) orchestrator\b", re.MULTILINE)
    assert [
        path for path in list_absolute_tracked_paths() if path.suffix == ".py" and imports.search(path.read_text())
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_in_pages_exist(page: Path) -> None:
    paths = re.findall(r"`((?:containers|docs|orchestrator|scripts|shared|tests)/[\w./-]+)`", page.read_text())
    examples = ("containers/my-job", "orchestrator/local/resources/greeting")
    missing_files = [path for path in paths if not (REPOSITORY / path).exists() and not path.startswith(examples)]
    assert missing_files == []
