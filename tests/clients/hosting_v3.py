"""Checks all kinds of hosting with the resources of the SageMaker SDK v3.

Runs in the SDK's virtual environment. Usage: hosting_v3.py SERVE-IMAGE PREFIX
"""

import os
import re
import sys
from typing import Any

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, InferenceComponent, Model

from tests.clients.hosting_boto3 import Boto3Client
from tests.clients.hosting_kinds import CSV, ROW, VARIANT, HostingKind, Settings, check_all_kinds
from tests.clients.polling import poll_quickly

poll_quickly()


class SdkResourceClient(Boto3Client):
    """A client that deploys, updates and calls endpoints with the SDK's resources; boto3 reads metrics and objects."""

    def _create_models(self, kind: HostingKind) -> None:
        for version in (0, 1):
            Model.create(**to_snake_case(self.settings.make_model(kind, version, f"{self.make_name(kind)}-{version}")))

    def _create_config(self, kind: HostingKind, version: int) -> None:
        if "ServerlessConfig" in kind.variant:
            # This version of the SDK sends `memory_size_in_mb` as MemorySizeInMb, and botocore refuses this name.
            return super()._create_config(kind, version)
        name = self.make_name(kind)
        models = [f"{name}-{version}", f"{name}-{1 - version}"]
        EndpointConfig.create(**to_snake_case(self.settings.make_config(kind, f"{name}-{version}", models)))
        return None

    def deploy(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        self._create_models(kind)
        self._create_config(kind, version=0)
        Endpoint.create(name, endpoint_config_name=f"{name}-0").wait_for_status("InService")
        if kind.copies:
            component = InferenceComponent.create(
                name,
                endpoint_name=name,
                variant_name=VARIANT,
                specification=to_snake_case(self._make_specification(kind, version=0)),
                runtime_config={"copy_count": kind.copies},
            )
            component.wait_for_status("InService")

    def update(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        if kind.copies:
            component = InferenceComponent.get(name)
            component.update(specification=to_snake_case(self._make_specification(kind, version=1)))
            component.wait_for_status("InService")
            return
        self._create_config(kind, version=1)
        endpoint = Endpoint.get(name)
        endpoint.endpoint_config_name = f"{name}-1"
        endpoint.update()
        endpoint.wait_for_status("InService")

    def call(self, kind: HostingKind) -> str:
        if kind.operation == "InvokeEndpointWithResponseStream":
            return super().call(kind)  # the SDK's `invoke_with_response_stream` fails for every response
        endpoint, request = Endpoint(endpoint_name=self.make_name(kind)), to_snake_case({**CSV, **kind.target})
        if kind.copies:
            request["inference_component_name"] = self.make_name(kind)
        if kind.operation == "InvokeEndpointAsync":
            response = endpoint.invoke_async(input_location=f"{self.settings.uri}/row.csv", **request)
            return self._read_response(response.output_location)
        return str(endpoint.invoke(body=ROW, **request).body.read().decode().strip())

    def delete(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        if kind.copies:
            component = InferenceComponent.get(name)
            component.delete()
            component.wait_for_delete()
        endpoint = Endpoint.get(name)
        endpoint.delete()
        endpoint.wait_for_delete()


def to_snake_case(members: Any) -> Any:
    """Rename the members of a request to the SDK's names in snake case, except environment variables of containers."""
    if isinstance(members, list):
        return [to_snake_case(item) for item in members]
    if not isinstance(members, dict):
        return members
    return {
        re.sub("(?<=[a-z0-9])([A-Z])", r"_\1", name).lower(): value if name == "Environment" else to_snake_case(value)
        for name, value in members.items()
    }


if __name__ == "__main__":
    image, uri = sys.argv[1:]
    settings = Settings(image, os.environ["SAGEMAKER_ROLE"], uri)
    client = SdkResourceClient(boto3.session.Session(), settings, "v3")
    check_all_kinds(client, client.cloudwatch)
