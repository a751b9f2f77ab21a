"""The flags of the verbs that go to AWS. Those that are not given leave `microjobs.toml` its say."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.failures import UsageError

if TYPE_CHECKING:
    from microjobs_orchestrator.aws.settings import Settings
    from microjobs_orchestrator.runs.backend import Backend
    from microjobs_orchestrator.runs.viewing import View

PREFIX = "aws_"
"""Of the flags' names among a verb's options."""


def add(parser: argparse.ArgumentParser, *, requests: bool = False) -> None:
    """Add `--on`, and what it takes.

    Args:
        parser: a verb's.
        requests: also what only requests need.
    """
    parser.add_argument("--on", choices=("here", "aws"), default="here", help="the backend (default: %(default)s)")
    group = parser.add_argument_group("on AWS", "Each is also a setting in [aws] of microjobs.toml: docs/using/aws.md")
    flag = _adder(group)
    flag("--profile", metavar="P", help="of ~/.aws/config (default: as boto3 finds it)")
    flag("--region", metavar="R", help="(default: as boto3 finds it)")
    if requests:
        flag("--role", metavar="ARN", help="the role that jobs run as")
        flag("--bucket", metavar="B", help="where all data lies")
        flag("--prefix", metavar="FOLDER", help="of all data in the bucket (default: microjobs)")
        flag("--registry", metavar="HOST[/PREFIX]", help="of the images (default: the account's ECR)")
        flag("--instance-type", metavar="[STEP=]TYPE", action="append", help="such as ml.m5.large, train=ml.c5.xlarge")
        flag("--endpoint-instances", type=int, metavar="N", help="(default: 1)")
        flag("--max-minutes", type=int, metavar="N", help="of a job, and until an endpoint is up (default: 60)")
        flag("--spot", action="store_true", help="train on spot instances")
        flag("--spot-wait-minutes", type=int, metavar="N", help="longer for waiting (default: 60)")
        flag("--subnets", type=_items, metavar="ID,ID", help="of a VPC that jobs and models run in")
        flag("--security-groups", type=_items, metavar="ID,ID", help="of that VPC")
        flag("--kms-key", metavar="KEY", help="encrypts outputs and volumes")
        flag("--tag", type=_pair, dest="aws_tags", metavar="KEY=VALUE", action="append", help="on all that is created")


def _adder(group: Any) -> Callable[..., None]:
    def flag(name: str, **members: Any) -> None:
        destination = PREFIX + name.removeprefix("--").replace("-", "_")
        group.add_argument(name, **{"dest": destination, "default": argparse.SUPPRESS, **members})

    return flag


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def on_aws(options: argparse.Namespace) -> bool:
    """Whether a verb goes to AWS.

    Raises:
        UsageError: it does not, and flags were given that only AWS takes.
    """
    if options.on == "aws":
        return True
    if names := [name.removeprefix(PREFIX) for name in vars(options) if name.startswith(PREFIX)]:
        shown = ", ".join("--tag" if name == "tags" else f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(f"only --on aws takes {shown}")
    return False


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags give."""
    values = {name.removeprefix(PREFIX): value for name, value in vars(options).items() if name.startswith(PREFIX)}
    if "tags" in values:
        values["tags"] = dict(values["tags"])
    types = dict(_step_and_type(text) for text in values.pop("instance_type", []))
    if "" in types:
        values["instance_type"] = types.pop("")
    return {**values, "instance_types": types}


def _step_and_type(text: str) -> tuple[str, str]:
    step, _, instance_type = text.rpartition("=")
    return step, instance_type


def chosen(options: argparse.Namespace) -> "Settings":
    """Settings of the file and the flags, with boto3's region; not yet checked."""
    from microjobs_orchestrator.aws import settings
    from microjobs_orchestrator.aws.backend import with_region

    return with_region(settings.changed(settings.read(), given(options)))


def account(options: argparse.Namespace, *, requests: bool) -> "Settings":
    """Settings for commands that ask AWS.

    Args:
        requests: whether the command makes requests for jobs, which need a role and a bucket.

    Raises:
        UsageError: settings or credentials are missing or wrong, all of them at once.
    """
    from microjobs_orchestrator.aws import settings
    from microjobs_orchestrator.aws.backend import credentials_problems

    found = chosen(options)
    problems = settings.problems(found) if requests else settings.region_problems(found)
    settings.refuse([*problems, *credentials_problems(found)])
    return found


def profile(options: argparse.Namespace) -> str:
    """The profile that a command uses, by its flag or by the file; empty if neither names one."""
    from microjobs_orchestrator.aws import settings

    with suppress(UsageError):
        return getattr(options, "aws_profile", None) or getattr(options, "profile", None) or settings.read().profile
    return ""


def reached(options: argparse.Namespace) -> "AbstractContextManager[Backend]":
    """The backend of a command that changes what is there and starts nothing new.

    Raises:
        UsageError: no region or no credentials are known, or flags for AWS are given without it.
    """
    if on_aws(options):
        return nullcontext(_account(options))
    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.runs import backend

    return backend.local_backend(Home.from_environment())


def viewed(options: argparse.Namespace) -> "View":
    """The view of a command that only reads.

    Raises:
        UsageError: as `reached`.
    """
    from microjobs_orchestrator.local.home import Home
    from microjobs_orchestrator.runs import viewing

    if on_aws(options):
        backend = _account(options)
        return viewing.BackendView(backend, f"AWS, region {backend.sagemaker.meta.region_name}")
    return viewing.HomeView(Home.from_environment())


def need_jobs(options: argparse.Namespace) -> None:
    """Refuse a folder that has no jobs before a server is started for it.

    Raises:
        UsageError: as `reached`, or nothing has ever run in the folder.
    """
    if not on_aws(options):
        from microjobs_orchestrator.local.home import Home
        from microjobs_orchestrator.runs.viewing import need_state

        need_state(Home.from_environment())


def _account(options: argparse.Namespace) -> "Backend":
    from microjobs_orchestrator.aws.backend import connect

    return connect(account(options, requests=False), no_image)


def no_image(job: str) -> str:
    """For places that nothing is started at."""
    raise AssertionError(f"no request is made here, yet one wants the image of {job}")
