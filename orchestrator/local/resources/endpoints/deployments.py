"""Deployments: copies of an endpoint configuration and its models, so that the originals can be deleted."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import captures
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.serving import get_container
from microjobs_orchestrator.local.resources.operations import find_resource

Deployment = Mapping[str, Any]
"""Members: EndpointConfigName; Variants, the configuration's variants with their present weights and counts, each also
with Model (a CreateModel request) and the InstanceId of its host; and AsyncInferenceConfig and DataCaptureConfig, or
None."""

COUNT, WEIGHT = "InitialInstanceCount", "InitialVariantWeight"

VARIANT_PROPERTIES = {"DesiredInstanceCount": COUNT, "DesiredWeight": WEIGHT}
"""The members of variants that updates change or retain, by their names in requests."""


def deploy(context: Context, config: str) -> Deployment:
    """Deploy a configuration to new hosts. Raise ValidationError if it or one of its models does not exist."""
    description = find_resource(context, ENDPOINT_CONFIG, config).description
    variants = [
        {
            **variant,
            "Model": find_resource(context, MODEL, variant["ModelName"]).request,
            "InstanceId": f"i-{secrets.token_hex(8)}",
        }
        for variant in description["ProductionVariants"]
    ]
    others = {name: description.get(name) for name in ("AsyncInferenceConfig", "DataCaptureConfig")}
    return {"EndpointConfigName": config, "Variants": variants, **others}


def change_variants(deployment: Deployment, changes: Mapping[str, Mapping[str, Any]]) -> Deployment:
    """Return a deployment with changed variants. `changes` has the changed members by variant name."""
    variants = [{**variant, **changes.get(variant["VariantName"], {})} for variant in deployment["Variants"]]
    return {**deployment, "Variants": variants}


def describe(deployment: Deployment, *, is_serving: bool) -> dict[str, Any]:
    """Return the members of DescribeEndpoint for a deployment. One host serves each variant, whatever its count."""
    now = time.time()
    variants = []
    for variant in deployment["Variants"]:
        uri, count, weight = get_container(variant["Model"])["Image"], variant[COUNT], variant[WEIGHT]
        variants.append(
            {
                "VariantName": variant["VariantName"],
                "DeployedImages": [{"SpecifiedImage": uri, "ResolvedImage": uri, "ResolutionTime": now}],
                "CurrentWeight": weight,
                "DesiredWeight": weight,
                "CurrentInstanceCount": count if is_serving else 0,
                "DesiredInstanceCount": count,
            }
        )
    return {
        "EndpointConfigName": deployment["EndpointConfigName"],
        "ProductionVariants": variants,
        "AsyncInferenceConfig": deployment.get("AsyncInferenceConfig"),
        "DataCaptureConfig": captures.describe(deployment.get("DataCaptureConfig")),
    }
