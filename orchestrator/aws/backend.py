"""AWS as a backend where workflows run."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from microjobs_orchestrator.aws.complete import completing
from microjobs_orchestrator.aws.prices import load_prices
from microjobs_orchestrator.aws.remedies import login, remedy
from microjobs_orchestrator.aws.settings import Problem, Settings
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.runs.backend import SERVICES, Backend, RequestContext

POLL_INTERVAL = 5.0
"""Seconds between two looks at a job: all runs of an account share the limits of Describe calls."""

CLIENT = Config(
    connect_timeout=10,
    read_timeout=70,
    # Asks more slowly as soon as AWS says that it was asked too often, and again after broken connections.
    retries={"mode": "adaptive", "max_attempts": 10},
    user_agent_extra="microjobs",
)


def session(settings: Settings) -> boto3.Session:
    """boto3's session: environment, profile, SSO, instance role, in its own order. Opens no connection.

    Raises:
        UsageError: there is no such profile.
    """
    try:
        return _open(settings)
    except BotoCoreError as error:
        raise UsageError(f"{error}: {remedy(error, settings.profile)}") from error


def _open(settings: Settings) -> boto3.Session:
    return boto3.Session(profile_name=settings.profile or None, region_name=settings.region or None)


def with_region(settings: Settings) -> Settings:
    """Settings with the region that boto3 finds, if none is set."""
    if settings.region:
        return settings
    with suppress(BotoCoreError):  # no such profile: `credentials_problems` reports it
        return replace(settings, region=_open(settings).region_name or "")
    return settings


def credentials_problems(settings: Settings) -> list[Problem]:
    """Whether boto3 finds credentials; whether AWS takes them, only AWS knows."""
    try:
        found = _open(settings).get_credentials()
    except BotoCoreError as error:
        return [Problem(str(error), remedy(error, settings.profile) or login(settings.profile))]
    return [] if found else [Problem("no credentials for AWS are found", login(settings.profile))]


def request_context(settings: Settings, image: Callable[[str], str]) -> RequestContext:
    """What requests need to know of an account; nothing is asked of AWS for it."""
    return RequestContext(
        bucket=settings.bucket,
        prefix=settings.key_prefix,
        role=settings.role,
        image=image,
        instance_type=settings.instance_type,
        instance_types=settings.instance_types,
        endpoint_instances=settings.endpoint_instances,
        max_seconds=60 * settings.max_minutes,
        complete=completing(settings),
    )


def connect(settings: Settings, image: Callable[[str], str]) -> Backend:
    """The account's backend. Credentials are looked for at the first request."""
    opened = session(settings)
    clients: Any = {name: opened.client(name, config=CLIENT) for name in SERVICES}  # type: ignore[call-overload]
    known = request_context(settings, image)
    return Backend(
        **{item.name: getattr(known, item.name) for item in fields(known)},
        title=f"AWS account {settings.account}",
        why=f"region {settings.region}, as {settings.role_name}",
        sagemaker=clients["sagemaker"],
        runtime=clients["sagemaker-runtime"],
        s3=clients["s3"],
        logs=clients["logs"],
        poll_interval=POLL_INTERVAL,
        max_poll_interval=POLL_INTERVAL,
        price=load_prices(settings).get,
    )
