"""Deployments: a copy of an endpoint configuration and its models, which may be deleted while the endpoint serves."""

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models import model as models
from microjobs_orchestrator.local.state import Record

Deployment = Mapping[str, Any]
"""EndpointConfigName; Variants: the configuration's, each with its Model and the InstanceId of its container, and with
the weight and the count of now; AsyncInferenceConfig, if it has one."""

COUNT, WEIGHT = "InitialInstanceCount", "InitialVariantWeight"

PROPERTIES = {"DesiredInstanceCount": COUNT, "DesiredWeight": WEIGHT}
"""What an update may retain, under the names of requests and of configurations."""


def deploy(context: Context, config: str) -> Deployment:
    """The deployment of a configuration, with new containers.

    Raises:
        ValidationError: the configuration or a model of it is missing.
    """
    record = context.state.get(ENDPOINT_CONFIG.arn_type, config)
    if record is None:
        config_arn = format_arn(f"{ENDPOINT_CONFIG.arn_type}/{config}", context.settings.region)
        raise ValidationError(f'Could not find endpoint configuration "{config_arn}".')
    variants = [
        {**variant, "Model": models.find(context, variant["ModelName"]), "InstanceId": f"i-{secrets.token_hex(8)}"}
        for variant in record.description["ProductionVariants"]
    ]
    return {"EndpointConfigName": config, "Variants": variants, **_asynchronous(record)}


def _asynchronous(record: Record) -> dict[str, Any]:
    name = "AsyncInferenceConfig"
    return {name: record.description[name]} if name in record.description else {}


def retain(deployment: Deployment, before: Deployment, excluded: Iterable[str]) -> Deployment:
    """A deployment with the counts and weights of the one before it, for variants that both have.

    Args:
        excluded: those of `PROPERTIES` that are the new configuration's nevertheless.
    """
    known = {variant["VariantName"]: variant for variant in before["Variants"]}
    names = [ours for name, ours in PROPERTIES.items() if name not in excluded]
    variants = [
        {**variant, **{name: known[variant["VariantName"]][name] for name in names if variant["VariantName"] in known}}
        for variant in deployment["Variants"]
    ]
    return {**deployment, "Variants": variants}


def change(deployment: Deployment, wanted: Iterable[Mapping[str, Any]]) -> Deployment:
    """A deployment with other counts and weights, and with the same containers.

    Args:
        wanted: items of DesiredWeightsAndCapacities.

    Raises:
        ValidationError: there is no such variant.
    """
    by_name = {item["VariantName"]: item for item in wanted}
    known = [variant["VariantName"] for variant in deployment["Variants"]]
    if unknown := [name for name in by_name if name not in known]:
        raise ValidationError(f"Could not find variant(s) {', '.join(unknown)}; there are: {', '.join(known)}.")
    variants = []
    for variant in deployment["Variants"]:
        item = by_name.get(variant["VariantName"], {})
        variants.append({**variant, **{ours: item[name] for name, ours in PROPERTIES.items() if name in item}})
    return {**deployment, "Variants": variants}


def describe(deployment: Deployment, *, serves: bool) -> dict[str, Any]:
    """What DescribeEndpoint says of a deployment. One container serves a variant, however many were asked for."""
    now = time.time()
    variants = []
    for variant in deployment["Variants"]:
        uri = models.container(variant["Model"])["Image"]
        count, weight = variant[COUNT], variant[WEIGHT]
        images = [{"SpecifiedImage": uri, "ResolvedImage": uri, "ResolutionTime": now}]
        described = {"VariantName": variant["VariantName"], "DeployedImages": images}
        described |= {"CurrentWeight": weight, "DesiredWeight": weight}
        described |= {"CurrentInstanceCount": count if serves else 0, "DesiredInstanceCount": count}
        variants.append(described)
    config = deployment.get("AsyncInferenceConfig")
    return {
        "EndpointConfigName": deployment["EndpointConfigName"],
        "ProductionVariants": variants,
        "AsyncInferenceConfig": config,
    }
