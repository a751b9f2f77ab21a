"""`microjobs completion SHELL`: completion of commands, flags and names with the tab key."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

EXAMPLES = """add one of these lines to the file that your shell reads when it starts:
  bash, ~/.bashrc                    eval "$(microjobs completion bash)"
  zsh, ~/.zshrc                      autoload -U compinit && compinit && eval "$(microjobs completion zsh)"
  fish, ~/.config/fish/config.fish   microjobs completion fish | source
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def call(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["microjobs"], shell=options.shell))
    return 0


def is_requested() -> bool:
    """Return whether a shell called this program to complete a command line."""
    return "_ARGCOMPLETE" in os.environ


def print_completions(parser: argparse.ArgumentParser) -> None:
    """Print the possible completions for the shell, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)


def list_job_and_endpoint_names(**_: object) -> list[str]:
    """Return the names of jobs and endpoints in the home, newest first."""
    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.runs.home_view import HomeView
    from microjobs_orchestrator.runs.view import Filter

    return [row.name for row in HomeView(Home.from_environment()).list_newest(Filter(limit=100))]


def list_image_jobs(**_: object) -> list[str]:
    """Return the names of the ready-made jobs that have an image."""
    containers = Path(__file__).resolve().parents[2] / "containers"
    return sorted(path.parent.name for path in containers.glob("*/image.yml"))


def set_completer(argument: argparse.Action, completer: Callable[..., list[str]]) -> None:
    """Complete an argument with the values that a function returns."""
    argument.completer = completer  # type: ignore[attr-defined]  # argcomplete reads this attribute
