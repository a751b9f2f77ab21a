"""Requests as the AWS CLI takes them: `aws sagemaker create-… --cli-input-json`. Nothing is asked of AWS."""

import json
from collections.abc import Iterable, Iterator

from botocore import xform_name

from orchestrator.workflows.place import Site
from orchestrator.workflows.plan import Planned


def lines(site: Site, run: str, plan: Iterable[Planned]) -> Iterator[tuple[str, str]]:
    """For each request what takes it, and its JSON in a line."""
    for planned in plan:
        verb = xform_name(planned.operation, "-")
        request = site.complete(run, planned.operation, planned.request)
        yield f"aws sagemaker {verb} --cli-input-json", json.dumps(request)
