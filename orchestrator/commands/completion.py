"""`microjobs completion SHELL`: what completes verbs, flags and jobs at a press of the tab key."""

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microjobs_orchestrator.commands import Subparsers

EXAMPLES = """put one of these into the file that your shell reads at its start:
  bash, ~/.bashrc                    eval "$(microjobs completion bash)"
  zsh, ~/.zshrc                      autoload -U compinit && compinit && eval "$(microjobs completion zsh)"
  fish, ~/.config/fish/config.fish   microjobs completion fish | source
"""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print what lets a shell complete words: bash, zsh, fish",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(call=call)


def call(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["microjobs"], shell=options.shell))
    return 0


def wanted() -> bool:
    """Whether a shell called this program for words, and not to run."""
    return "_ARGCOMPLETE" in os.environ


def answer(parser: argparse.ArgumentParser) -> None:
    """Give the shell the words that may follow, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)


def jobs(**_: object) -> list[str]:
    """PlanNames of jobs and endpoints here, newest first."""
    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.runs.home_view import HomeView
    from microjobs_orchestrator.runs.view import Filter

    return [row.name for row in HomeView(Home.from_environment()).newest(Filter(limit=100))]


def images(**_: object) -> list[str]:
    """PlanNames of the jobs of this repository."""
    from pathlib import Path

    containers = Path(__file__).resolve().parents[2] / "containers"
    return sorted(path.parent.name for path in containers.glob("*/image.yml"))


def complete(argument: argparse.Action, completer: object) -> None:
    """Let an argument be completed by a function."""
    argument.completer = completer  # type: ignore[attr-defined]  # argcomplete looks for it there
