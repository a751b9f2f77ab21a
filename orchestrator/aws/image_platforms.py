"""Platforms of an image in ECR, from its index or its config."""

import json
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_ecr import ECRClient

MANIFEST_TYPES = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]


def list_platforms(ecr: "ECRClient", repository: str, digest: str) -> list[str]:
    """Return the platforms of an image, such as `linux/amd64`; an empty list if the registry does not have it.

    Attestations of a build are left out. An index lists them like images, with the operating system `unknown`.
    """
    try:
        response = ecr.batch_get_image(
            repositoryName=repository, imageIds=[{"imageDigest": digest}], acceptedMediaTypes=MANIFEST_TYPES
        )
    except ecr.exceptions.RepositoryNotFoundException:
        return []
    if not response["images"]:
        return []
    manifest: dict[str, Any] = json.loads(response["images"][0]["imageManifest"])
    if "manifests" in manifest:
        platforms = (item.get("platform", {}) for item in manifest["manifests"])
        return [_format_platform(platform) for platform in platforms if platform.get("os") != "unknown"]
    layer = ecr.get_download_url_for_layer(repositoryName=repository, layerDigest=manifest["config"]["digest"])
    with urllib.request.urlopen(layer["downloadUrl"], timeout=30) as config:
        return [_format_platform(json.load(config))]


def _format_platform(platform: dict[str, Any]) -> str:
    return f"{platform.get('os')}/{platform.get('architecture')}"
