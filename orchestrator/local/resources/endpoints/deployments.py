"""Deployments: copies of an endpoint configuration and its models, so that the originals can be deleted."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import captures, serverless
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.operations import find_resource

Deployment = Mapping[str, Any]
"""Members: EndpointConfigName; Variants and Shadows, the configuration's production variants and shadow variants with
their present weights and counts, each also with Model (a CreateModel request) and the InstanceId of its host; and
AsyncInferenceConfig, DataCaptureConfig and EnableNetworkIsolation, or None. A variant that inference components serve
has no Model."""

VARIANTS, SHADOWS = "Variants", "Shadows"
MEMBERS = {VARIANTS: "ProductionVariants", SHADOWS: "ShadowProductionVariants"}
"""The members of requests and descriptions, by the members of deployments."""

OTHER_MEMBERS = ("AsyncInferenceConfig", "DataCaptureConfig", "EnableNetworkIsolation")

COUNT, WEIGHT = "InitialInstanceCount", "InitialVariantWeight"

VARIANT_PROPERTIES = {"DesiredInstanceCount": COUNT, "DesiredWeight": WEIGHT}
"""The members of variants that updates change or retain, by their names in requests."""


def deploy(context: Context, config: str) -> Deployment:
    """Deploy a configuration to new hosts. Raise ValidationError if it or one of its models does not exist."""
    description = find_resource(context, ENDPOINT_CONFIG, config).description
    variants = {
        name: [_deploy_variant(context, variant) for variant in description.get(member, ())]
        for name, member in MEMBERS.items()
    }
    others = {name: description.get(name) for name in OTHER_MEMBERS}
    return {"EndpointConfigName": config, **variants, **others}


def _deploy_variant(context: Context, variant: Mapping[str, Any]) -> Mapping[str, Any]:
    model = {"Model": find_resource(context, MODEL, variant["ModelName"]).request} if "ModelName" in variant else {}
    return {**variant, **model, "InstanceId": f"i-{secrets.token_hex(8)}"}


def find_random_variants(deployment: Deployment) -> frozenset[str]:
    """Return the names of the variants whose copies of inference components are chosen at random."""
    strategies = {item["VariantName"]: item.get("RoutingConfig", {}) for item in deployment[VARIANTS]}
    return frozenset(name for name, config in strategies.items() if config.get("RoutingStrategy") == "RANDOM")


def map_variants(deployment: Deployment) -> dict[str, Mapping[str, Any]]:
    """Return the production variants and the shadow variants of a deployment, by name."""
    return {variant["VariantName"]: variant for name in MEMBERS for variant in deployment.get(name, ())}


def change_variants(deployment: Deployment, changes: Mapping[str, Mapping[str, Any]]) -> Deployment:
    """Return a deployment with changed variants. `changes` has the changed members by variant name."""
    changed = {
        name: [{**variant, **changes.get(variant["VariantName"], {})} for variant in deployment.get(name, ())]
        for name in MEMBERS
    }
    return {**deployment, **changed}


def describe(deployment: Deployment, *, is_serving: bool) -> dict[str, Any]:
    """Return the members of DescribeEndpoint for a deployment. One host serves each variant, whatever its count."""
    variants = {
        member: [_describe_variant(variant, is_serving=is_serving) for variant in deployment.get(name, ())]
        for name, member in MEMBERS.items()
    }
    return {
        "EndpointConfigName": deployment["EndpointConfigName"],
        **{member: items or None for member, items in variants.items()},
        "AsyncInferenceConfig": deployment.get("AsyncInferenceConfig"),
        "DataCaptureConfig": captures.describe(deployment.get("DataCaptureConfig")),
    }


def _describe_variant(variant: Mapping[str, Any], *, is_serving: bool) -> dict[str, Any]:
    images = [container["Image"] for container in list_containers(variant.get("Model", {}))]
    now, count, weight = time.time(), variant.get(COUNT, 0), variant[WEIGHT]
    config = variant.get(serverless.MEMBER)
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [{"SpecifiedImage": uri, "ResolvedImage": uri, "ResolutionTime": now} for uri in images],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count if is_serving else 0,
        "DesiredInstanceCount": count,
        **({"CurrentServerlessConfig": config, "DesiredServerlessConfig": config} if config else {}),
    }


def make_defaults(variant: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members that a variant of a configuration has by default."""
    return {WEIGHT: 1.0} if serverless.MEMBER in variant else {COUNT: 1, WEIGHT: 1.0}
