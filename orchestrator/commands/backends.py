"""The backend or the view that a command's flag `--on` selects. boto3 is imported only if needed."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from microjobs_orchestrator.aws import flags
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.runs import home_view
from microjobs_orchestrator.runs.view import View

if TYPE_CHECKING:
    from microjobs_orchestrator.runs.backend import Backend


def open_backend(options: argparse.Namespace) -> "AbstractContextManager[Backend]":
    """Return the backend of a command that stops or deletes resources and creates none.

    Raises:
        UsageError: on AWS, the region or the credentials are unknown; on this machine, flags for AWS are set.
    """
    if flags.uses_aws(options):
        return nullcontext(connect_aws(options))
    from microjobs_orchestrator.runs import backend

    return backend.open_local_backend(Home.from_environment())


def open_view(options: argparse.Namespace) -> View:
    """Return the view of a command that only reads. Raise UsageError for the same reasons as `open_backend`."""
    if not flags.uses_aws(options):
        return home_view.HomeView(Home.from_environment())
    from microjobs_orchestrator.runs.backend_view import BackendView

    backend = connect_aws(options)
    return BackendView(backend, f"AWS, region {backend.sagemaker.meta.region_name}")


def connect_aws(options: argparse.Namespace) -> "Backend":
    """Return the backend of AWS for a command that creates no jobs. Raise UsageError as `open_backend` does."""
    from microjobs_orchestrator.aws.backend import connect

    return connect(flags.require_settings(options, steps=None), _refuse_image)


def _refuse_image(job: str) -> str:
    raise AssertionError(f"this command creates no jobs, but needs the image of {job}")
