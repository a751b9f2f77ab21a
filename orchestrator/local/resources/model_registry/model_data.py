"""The model data of packages. The server detects a change of the data after the registration.

A package contains the URI of its data, as on AWS, and the ETag that the data had at the registration. A host whose data
has another ETag fails.
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.model_data import find_data, make_etag

Specification = Mapping[str, Any]
"""An InferenceSpecification, or an item of AdditionalInferenceSpecifications."""


def add_etags(context: Context, specification: Specification) -> dict[str, Any]:
    """Return a specification whose containers have the ETags of their model data.

    A container stays unchanged if it has no model data, or if it is a multi-model container.
    Raise ValidationError if model data does not exist, or if the request states another ETag.
    """
    containers = [_add_etag(context, container) for container in specification["Containers"]]
    return {**specification, "Containers": containers}


def _add_etag(context: Context, container: Mapping[str, Any]) -> dict[str, Any]:
    data = find_data(context.store, container)
    if not data.objects:
        return dict(container)
    etag = make_etag(context.store, data)
    if "ModelDataSource" not in container:
        return {**container, "ModelDataETag": etag}
    source = {**container["ModelDataSource"]["S3DataSource"], "ETag": etag}
    return {**container, "ModelDataSource": {"S3DataSource": source}}
