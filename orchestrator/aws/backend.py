"""AWS as a backend."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from microjobs_orchestrator.aws.costs import load_prices
from microjobs_orchestrator.aws.remedies import find_remedy, format_login_commands
from microjobs_orchestrator.aws.request_completer import make_request_completer
from microjobs_orchestrator.aws.settings import Problem, Settings
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.runs.backend import SERVICES, Backend, RequestContext

POLL_INTERVAL_SECONDS = 5.0
"""Seconds between two Describe calls for a job. All runs of an account share AWS's rate limits."""

CLIENT_CONFIG = Config(
    connect_timeout=10,
    read_timeout=70,
    # In this mode, boto3 repeats requests, and slows down when AWS reports that the rate limit is exceeded.
    retries={"mode": "adaptive", "max_attempts": 10},
    user_agent_extra="microjobs",
)


def open_session(settings: Settings) -> boto3.Session:
    """Return boto3's session, with credentials that boto3 finds. Raise UsageError if the profile does not exist."""
    try:
        return _make_session(settings)
    except BotoCoreError as error:
        raise UsageError(f"{error}: {find_remedy(error, settings.profile)}") from error


def _make_session(settings: Settings) -> boto3.Session:
    return boto3.Session(profile_name=settings.profile or None, region_name=settings.region or None)


def add_region(settings: Settings) -> Settings:
    """Return the settings, with boto3's region if they have none."""
    if settings.region:
        return settings
    with suppress(BotoCoreError):  # if the profile does not exist, `find_credentials_problems` reports this
        return replace(settings, region=_make_session(settings).region_name or "")
    return settings


def find_credentials_problems(settings: Settings) -> list[Problem]:
    """Return a problem if boto3 finds no credentials. Whether AWS accepts the credentials is not checked."""
    try:
        credentials = _make_session(settings).get_credentials()
    except BotoCoreError as error:
        return [Problem(str(error), find_remedy(error, settings.profile) or format_login_commands(settings.profile))]
    if credentials:
        return []
    return [Problem("boto3 finds no credentials for AWS", format_login_commands(settings.profile))]


def make_request_context(settings: Settings, find_image_uri: Callable[[str], str]) -> RequestContext:
    """Return the values that requests to an account contain, such as its bucket and role. AWS is not called.

    Args:
        find_image_uri: returns the URI of a job's image.
    """
    return RequestContext(
        bucket=settings.bucket,
        prefix=settings.key_prefix,
        role=settings.role,
        find_image_uri=find_image_uri,
        instance_type=settings.instance_type,
        instance_types=settings.instance_types,
        endpoint_instances=settings.endpoint_instances,
        max_seconds=60 * settings.max_minutes,
        complete_request=make_request_completer(settings),
    )


def connect(settings: Settings, find_image_uri: Callable[[str], str]) -> Backend:
    """Return the backend of an account. boto3 looks for credentials at the first request."""
    session = open_session(settings)
    clients: Any = {name: session.client(name, config=CLIENT_CONFIG) for name in SERVICES}  # type: ignore[call-overload]
    context = make_request_context(settings, find_image_uri)
    return Backend(
        **{item.name: getattr(context, item.name) for item in fields(context)},
        title=f"AWS account {settings.account}",
        reason=f"region {settings.region}, as {settings.role_name}",
        sagemaker=clients["sagemaker"],
        runtime=clients["sagemaker-runtime"],
        s3=clients["s3"],
        logs=clients["logs"],
        poll_interval=POLL_INTERVAL_SECONDS,
        max_poll_interval=POLL_INTERVAL_SECONDS,
        find_price=load_prices(settings).get,
    )
