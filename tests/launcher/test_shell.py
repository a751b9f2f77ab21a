"""Tests in shells: the version, completion, and environment variables that are set and restored."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local import shell
from microjobs_orchestrator.local.home import HOME_VARIABLE, Home
from microjobs_orchestrator.local.state import State
from tests.documented import find_code_blocks

SCRIPTS_FOLDER = Path(sys.executable).parent


def run_command(command: list[str], **variables: str) -> str:
    environment = {**os.environ, "PATH": f"{SCRIPTS_FOLDER}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_version_has_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith("microjobs 0.1.0")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with one job."""
    home = Home(tmp_path / "home")
    home.create()
    state = State(home.state)
    state.add("training-job", "my-first", "arn", "Completed", {}, {"TrainingJobStatus": "Completed"})
    state.close()
    return home


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("microjobs st", ["stop "]),
        ("microjobs ps --st", ["--status "]),
        ("microjobs run ho", ["housing "]),
        ("microjobs run housing --fr", ["--framework "]),
        ("microjobs run housing --framework py", ["pytorch "]),
        ("microjobs local e", ["env "]),
        ("microjobs logs my", ["my-first "]),
        ("microjobs stop my", ["my-first "]),
        ("microjobs push se", ["serve "]),
    ],
)
def test_words_are_completed(home: Home, line: str, words: list[str]) -> None:
    script = "microjobs 8>&1 9>/dev/null"
    variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "|"}
    assert run_command(["bash", "-c", script], **variables, **{HOME_VARIABLE: str(home.root)}).split("|") == words


COMPLETION_SCRIPTS = {
    "bash": ('eval "$(microjobs completion bash)" && complete -p microjobs', "argcomplete"),
    "zsh": (
        'autoload -U compinit && compinit -D && eval "$(microjobs completion zsh)" && print $_comps[microjobs]',
        "_",
    ),
    "fish": ("microjobs completion fish | source; complete -C 'microjobs sto'", "stop"),
}


INTERACTIVE_FLAGS = {"bash": ["--noprofile", "--norc", "-i"], "zsh": ["-fis"]}


def require_shell(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", COMPLETION_SCRIPTS)
def test_shell_accepts_the_completion_script(name: str) -> None:
    require_shell(name)
    script, output = COMPLETION_SCRIPTS[name]
    assert output in run_command([name, "-c", script])


EARLIER_VARIABLES = {
    "AWS_PROFILE": "work",
    "AWS_ACCESS_KEY_ID": "it's mine",
    "AWS_REGION": "",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2",
}
SERVER_VARIABLES = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1"}
PROGRAMS = {
    "change": (
        "from microjobs_orchestrator.local import shell; "
        f"print(*shell.format_commands(shell.list_changes({SERVER_VARIABLES!r}, os.environ)), sep=chr(10))"
    ),
    "show": "print(*sorted(f'{name}={value!r}' for name, value in os.environ.items() if 'AWS' in name))",
}


@pytest.mark.parametrize("name", ["sh", "bash", "zsh"])
@pytest.mark.parametrize("change_count", [1, 2])
def test_variables_are_restored(name: str, change_count: int, tmp_path: Path) -> None:
    require_shell(name)
    for file, program in PROGRAMS.items():
        (tmp_path / file).write_text(f"import os; {program}\n")
    change = 'eval "$(python change)"\n' * change_count
    script = f'python show\n{change}python show\neval "$(microjobs local env --unset)"\npython show'
    environment = {"PATH": f"{SCRIPTS_FOLDER}:{os.environ['PATH']}", **EARLIER_VARIABLES}
    output = subprocess.run(
        [name, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    variables_before, server_variables, variables_after = output.splitlines()
    assert "AWS_ENDPOINT_URL='http://127.0.0.1:1'" in server_variables
    assert "AWS_PROFILE" not in server_variables
    assert "AWS_ENDPOINT_URL_S3" not in server_variables
    assert variables_after == variables_before


QUICK_START = Path("docs/using/quick-start.md")
(FIRST_STEPS,) = [block.text for block in find_code_blocks(QUICK_START) if "local up" in block.text]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_first_steps_of_the_quick_start_work_when_pasted(name: str, tmp_path: Path) -> None:
    require_shell(name)
    (tmp_path / ".venv").symlink_to(SCRIPTS_FOLDER.parent)
    (tmp_path / "microjobs.toml").write_text('[local]\nport = 0\nruntime = "process"\n')
    request = 'python -c \'import boto3; print(boto3.client("sagemaker").list_models()["Models"])\''
    lines = f'{FIRST_STEPS}\n{request}\neval "$(microjobs local env --unset)"\nmicrojobs local down\n'
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "TERM": "dumb"}
    command = [shutil.which(name) or name, *INTERACTIVE_FLAGS[name]]
    result = subprocess.run(
        command, input=lines, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert [line for line in result.stdout.splitlines() if line in ("[]", "stopped")] == ["[]", "stopped"], (
        result.stderr
    )


def test_variable_that_was_set_between_two_changes_is_restored() -> None:
    first_variables = {
        name: value for name, value in shell.list_changes(SERVER_VARIABLES, {}).items() if value is not None
    }
    second_changes = shell.list_changes(
        SERVER_VARIABLES, {**first_variables, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"}
    )
    assert second_changes["AWS_ENDPOINT_URL_S3"] is None
    second_variables = {name: value for name, value in second_changes.items() if value is not None}
    restorations = shell.list_restorations(second_variables)
    assert (restorations["AWS_ENDPOINT_URL_S3"], restorations["AWS_ENDPOINT_URL"]) == ("http://127.0.0.1:2", None)


def test_unset_without_changes_prints_nothing() -> None:
    assert shell.list_restorations(EARLIER_VARIABLES) == {}
