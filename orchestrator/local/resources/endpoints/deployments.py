"""Deployments: copies of an endpoint configuration and its models, so that the originals can be deleted."""

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import captures, serverless
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.models.containers import list_containers
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.operations import find_resource

Deployment = Mapping[str, Any]
"""Members for an endpoint: EndpointConfigName; StartTime, in seconds since 1970; Variants (production variants) and
Shadows (shadow variants), with their current weights and counts; and AsyncInferenceConfig, DataCaptureConfig and
EnableNetworkIsolation. The last three may be None. Each variant also has the InstanceId of its first instance, and
Model, a CreateModel request. A variant that inference components serve has no Model.

Members for an inference component: Model, Specification, InstanceType, Copies (the ids of the copies), and, for an
adapter, Base (the name of the base component)."""

VARIANTS, SHADOWS = "Variants", "Shadows"
VARIANT_LIST_MEMBERS = {VARIANTS: "ProductionVariants", SHADOWS: "ShadowProductionVariants"}
"""The members of requests and descriptions that list variants, by the members of deployments."""

COPIED_MEMBERS = ("AsyncInferenceConfig", "DataCaptureConfig", "EnableNetworkIsolation")
"""Members of a configuration that its deployments copy unchanged."""

INSTANCE_COUNT, VARIANT_WEIGHT = "InitialInstanceCount", "InitialVariantWeight"
"""Members of a variant. In a deployment, they have the current values, which updates may have changed."""

MEMBERS_BY_PROPERTY = {"DesiredInstanceCount": INSTANCE_COUNT, "DesiredWeight": VARIANT_WEIGHT}
"""The members of a variant that updates change or retain, by the names of the properties in requests for updates."""


def make_deployment(context: Context, config: str) -> Deployment:
    """Return a deployment of a configuration to new hosts. Raise ValidationError if the configuration, or one of its
    models, does not exist."""
    description = find_resource(context, ENDPOINT_CONFIG, config).description
    variants = {
        name: [_make_variant(context, variant) for variant in description.get(member, ())]
        for name, member in VARIANT_LIST_MEMBERS.items()
    }
    copied_members = {name: description.get(name) for name in COPIED_MEMBERS}
    return {"EndpointConfigName": config, "StartTime": time.time(), **variants, **copied_members}


def _make_variant(context: Context, variant: Mapping[str, Any]) -> Mapping[str, Any]:
    model = {"Model": find_resource(context, MODEL, variant["ModelName"]).request} if "ModelName" in variant else {}
    return {**variant, **model, "InstanceId": f"i-{secrets.token_hex(8)}"}


def find_randomly_routed_variants(deployment: Deployment) -> frozenset[str]:
    """Return the names of the variants whose instances, or copies of inference components, are chosen at random."""
    routing_configs = {
        name: variant.get("RoutingConfig", {}) for name, variant in get_variants_by_name(deployment).items()
    }
    return frozenset(name for name, config in routing_configs.items() if config.get("RoutingStrategy") == "RANDOM")


def list_instances(variant: Mapping[str, Any], limit: int) -> Iterator[Mapping[str, Any]]:
    """For each instance of a variant that should run, yield the variant with the InstanceId of this instance.

    Args:
        limit: the largest number of instances.
    """
    for number in range(min(get_instance_count(variant), limit)):
        digest = hashlib.sha256(f"{variant['InstanceId']} {number}".encode()).hexdigest()
        yield {**variant, "InstanceId": f"i-{digest[:16]}"} if number else variant


def get_instance_count(variant: Mapping[str, Any]) -> int:
    """Return the number of instances that a variant should have. A serverless variant counts as one instance."""
    return 1 if serverless.SERVERLESS_CONFIG in variant else int(variant[INSTANCE_COUNT])


def get_largest_instance_count(deployment: Deployment) -> int:
    """Return the number of instances of the largest variant."""
    return max(get_instance_count(variant) for variant in deployment[VARIANTS])


def get_variants_by_name(deployment: Deployment) -> dict[str, Mapping[str, Any]]:
    """Return the production variants and the shadow variants of a deployment, by name."""
    return {variant["VariantName"]: variant for name in VARIANT_LIST_MEMBERS for variant in deployment.get(name, ())}


def change_variants(deployment: Deployment, changes: Mapping[str, Mapping[str, Any]]) -> Deployment:
    """Return a deployment with changed variants. `changes` has the changed members by variant name."""
    changed_variants = {
        name: [{**variant, **changes.get(variant["VariantName"], {})} for variant in deployment.get(name, ())]
        for name in VARIANT_LIST_MEMBERS
    }
    return {**deployment, **changed_variants}


def describe(
    deployment: Deployment, running_counts: Mapping[str, int] | None = None, share: float = 1.0
) -> dict[str, Any]:
    """Return the members of DescribeEndpoint for a deployment.

    Args:
        running_counts: the number of running instances by variant; None if the deployment does not serve yet.
        share: the share of the requests that the deployment gets.
    """
    variants = _describe_variants(deployment, running_counts, share)
    return {
        "EndpointConfigName": deployment["EndpointConfigName"],
        **{member: items or None for member, items in variants.items()},
        "PendingDeploymentSummary": None,
        "AsyncInferenceConfig": deployment.get("AsyncInferenceConfig"),
        "DataCaptureConfig": captures.describe(deployment.get("DataCaptureConfig")),
    }


def describe_pending(
    deployment: Deployment, running_counts: Mapping[str, int] | None = None, share: float = 0.0
) -> dict[str, Any]:
    """Return the PendingDeploymentSummary of the deployment to which an endpoint is being updated.

    Args:
        running_counts: the number of running instances by variant; None if no instance runs yet.
        share: the share of the requests that the deployment gets.
    """
    status = {
        "Status": "Creating" if running_counts is None else "Baking",
        "StatusMessage": f"The new deployment gets {share:.0%} of the requests.",
    }
    variants = _describe_variants(deployment, running_counts, share)
    return {
        "EndpointConfigName": deployment["EndpointConfigName"],
        "StartTime": deployment.get("StartTime"),
        **{
            member: [
                {**item, "VariantStatus": [{**status, "StartTime": deployment.get("StartTime")}]} for item in items
            ]
            for member, items in variants.items()
            if items
        },
    }


def _describe_variants(
    deployment: Deployment, running_counts: Mapping[str, int] | None, share: float
) -> dict[str, list[dict[str, Any]]]:
    return {
        member: [_describe_variant(variant, running_counts, share) for variant in deployment.get(name, ())]
        for name, member in VARIANT_LIST_MEMBERS.items()
    }


def _describe_variant(
    variant: Mapping[str, Any], running_counts: Mapping[str, int] | None, share: float
) -> dict[str, Any]:
    images = [container["Image"] for container in list_containers(variant.get("Model", {}))]
    now, count, weight = time.time(), variant.get(INSTANCE_COUNT, 0), variant[VARIANT_WEIGHT]
    config = variant.get(serverless.SERVERLESS_CONFIG)
    # Serverless variants, and variants of inference components, run no instances of their own. They are described with
    # the number of instances in the configuration.
    has_hosts = "Model" in variant and config is None
    current_count = running_counts.get(variant["VariantName"], 0) if running_counts is not None and has_hosts else count
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [{"SpecifiedImage": uri, "ResolvedImage": uri, "ResolutionTime": now} for uri in images],
        "CurrentWeight": weight * share,
        "DesiredWeight": weight,
        "CurrentInstanceCount": current_count if running_counts is not None else 0,
        "DesiredInstanceCount": count,
        **({"CurrentServerlessConfig": config, "DesiredServerlessConfig": config} if config else {}),
    }


def describe_desired_variants(description: Mapping[str, Any], deployment: Deployment) -> dict[str, Any]:
    """Return the lists of variants of a description, with the desired counts and weights of a deployment."""
    variants = get_variants_by_name(deployment)

    def change(described_variant: Mapping[str, Any]) -> Mapping[str, Any]:
        variant = variants[described_variant["VariantName"]]
        return {
            **described_variant,
            "DesiredInstanceCount": variant.get(INSTANCE_COUNT, 0),
            "DesiredWeight": variant[VARIANT_WEIGHT],
        }

    members = [member for member in VARIANT_LIST_MEMBERS.values() if description.get(member)]
    return {member: [change(item) for item in description[member]] for member in members}


def make_defaults(variant: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members that a variant of a configuration has by default."""
    return (
        {VARIANT_WEIGHT: 1.0} if serverless.SERVERLESS_CONFIG in variant else {INSTANCE_COUNT: 1, VARIANT_WEIGHT: 1.0}
    )
