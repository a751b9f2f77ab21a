"""Shells: the version, completion, and variables that are set and restored."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from microjobs_orchestrator.cli import main
from microjobs_orchestrator.local import shell
from microjobs_orchestrator.local.home import HOME, Home
from microjobs_orchestrator.local.state import State
from tests.documented import code_blocks

BIN = Path(sys.executable).parent


def run(command: list[str], **variables: str) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_version_has_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
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
    assert run(["bash", "-c", script], **variables, **{HOME: str(home.root)}).split("|") == words


SHELLS = {
    "bash": ('eval "$(microjobs completion bash)" && complete -p microjobs', "argcomplete"),
    "zsh": (
        'autoload -U compinit && compinit -D && eval "$(microjobs completion zsh)" && print $_comps[microjobs]',
        "_",
    ),
    "fish": ("microjobs completion fish | source; complete -C 'microjobs sto'", "stop"),
}


INTERACTIVE = {"bash": ["--noprofile", "--norc", "-i"], "zsh": ["-fis"]}


def require_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("name", SHELLS)
def test_shell_accepts_the_completion_script(name: str) -> None:
    require_shell(name)
    script, output = SHELLS[name]
    assert output in run([name, "-c", script])


BEFORE = {
    "AWS_PROFILE": "work",
    "AWS_ACCESS_KEY_ID": "it's mine",
    "AWS_REGION": "",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2",
}
CHANGED = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1"}
PROGRAMS = {
    "change": (
        "from microjobs_orchestrator.local import shell; "
        f"print(*shell.format_commands(shell.list_changes({CHANGED!r}, os.environ)), sep=chr(10))"
    ),
    "show": "print(*sorted(f'{name}={value!r}' for name, value in os.environ.items() if 'AWS' in name))",
}


@pytest.mark.parametrize("name", ["sh", "bash", "zsh"])
@pytest.mark.parametrize("times", [1, 2])
def test_variables_are_restored(name: str, times: int, tmp_path: Path) -> None:
    require_shell(name)
    for file, program in PROGRAMS.items():
        (tmp_path / file).write_text(f"import os; {program}\n")
    change = 'eval "$(python change)"\n' * times
    script = f'python show\n{change}python show\neval "$(microjobs local env --unset)"\npython show'
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", **BEFORE}
    output = subprocess.run(
        [name, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    before, changed, after = output.splitlines()
    assert "AWS_ENDPOINT_URL='http://127.0.0.1:1'" in changed
    assert "AWS_PROFILE" not in changed
    assert "AWS_ENDPOINT_URL_S3" not in changed
    assert after == before


QUICK_START = Path("docs/using/quick-start.md")
(FIRST_STEPS,) = [block.text for block in code_blocks(QUICK_START) if "local up" in block.text]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_first_steps_of_the_quick_start_work_when_pasted(name: str, tmp_path: Path) -> None:
    require_shell(name)
    (tmp_path / ".venv").symlink_to(BIN.parent)
    (tmp_path / "microjobs.toml").write_text('[local]\nport = 0\nruntime = "process"\n')
    request = 'python -c \'import boto3; print(boto3.client("sagemaker").list_models()["Models"])\''
    lines = f'{FIRST_STEPS}\n{request}\neval "$(microjobs local env --unset)"\nmicrojobs local down\n'
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "TERM": "dumb"}
    command = [shutil.which(name) or name, *INTERACTIVE[name]]
    done = subprocess.run(
        command, input=lines, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert [line for line in done.stdout.splitlines() if line in ("[]", "stopped")] == ["[]", "stopped"], done.stderr


def test_variable_that_was_set_between_two_changes_is_restored() -> None:
    first = {name: value for name, value in shell.list_changes(CHANGED, {}).items() if value is not None}
    second = shell.list_changes(CHANGED, {**first, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2"})
    assert second["AWS_ENDPOINT_URL_S3"] is None
    saved = {name: value for name, value in second.items() if value is not None}
    restored = shell.list_restorations(saved)
    assert (restored["AWS_ENDPOINT_URL_S3"], restored["AWS_ENDPOINT_URL"]) == ("http://127.0.0.1:2", None)


def test_unset_without_changes_prints_nothing() -> None:
    assert shell.list_restorations(BEFORE) == {}
