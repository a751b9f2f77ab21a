"""Proves all kinds of hosting with the resources of the SageMaker SDK v3.

Runs in the SDK's virtual environment. Usage: hosting_v3.py SERVE-IMAGE PREFIX
"""

import os
import re
import sys
import time
from typing import Any

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, InferenceComponent, Model

from tests.clients.hosting_boto3 import Boto3
from tests.clients.hosting_kinds import CSV, ROW, VARIANT, Kind, Place, prove_all

# The SDK polls every 5 seconds; the endpoints start in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.3))


class Resources(Boto3):
    """Deploys, updates and calls endpoints with the SDK's resources; boto3 reads metrics and objects."""

    def _create_models(self, kind: Kind) -> None:
        for version in (0, 1):
            Model.create(**to_snake(self.place.make_model(kind, version, f"{self.name(kind)}-{version}")))

    def _create_config(self, kind: Kind, version: int) -> None:
        if "ServerlessConfig" in kind.variant:
            # This version sends `memory_size_in_mb` as MemorySizeInMb, which botocore refuses.
            return super()._create_config(kind, version)
        name = self.name(kind)
        models = [f"{name}-{version}", f"{name}-{1 - version}"]
        EndpointConfig.create(**to_snake(self.place.make_config(kind, f"{name}-{version}", models)))
        return None

    def deploy(self, kind: Kind) -> None:
        name = self.name(kind)
        self._create_models(kind)
        self._create_config(kind, 0)
        Endpoint.create(name, endpoint_config_name=f"{name}-0").wait_for_status("InService")
        if kind.copies:
            component = InferenceComponent.create(
                name,
                endpoint_name=name,
                variant_name=VARIANT,
                specification=to_snake(self._make_specification(kind, 0)),
                runtime_config={"copy_count": kind.copies},
            )
            component.wait_for_status("InService")

    def update(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.copies:
            component = InferenceComponent.get(name)
            component.update(specification=to_snake(self._make_specification(kind, 1)))
            component.wait_for_status("InService")
            return
        self._create_config(kind, 1)
        endpoint = Endpoint.get(name)
        endpoint.endpoint_config_name = f"{name}-1"
        endpoint.update()
        endpoint.wait_for_status("InService")

    def call(self, kind: Kind) -> str:
        if kind.operation == "InvokeEndpointWithResponseStream":
            return super().call(kind)  # `invoke_with_response_stream` of this version fails for every response
        endpoint, request = Endpoint(endpoint_name=self.name(kind)), to_snake({**CSV, **kind.target})
        if kind.copies:
            request["inference_component_name"] = self.name(kind)
        if kind.operation == "InvokeEndpointAsync":
            answer = endpoint.invoke_async(input_location=f"{self.place.uri}/row.csv", **request)
            return self._read_answer(answer.output_location)
        return str(endpoint.invoke(body=ROW, **request).body.read().decode().strip())

    def delete(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.copies:
            component = InferenceComponent.get(name)
            component.delete()
            component.wait_for_delete()
        endpoint = Endpoint.get(name)
        endpoint.delete()
        endpoint.wait_for_delete()


def to_snake(members: Any) -> Any:
    """Return members of a request with the names that the SDK has for them, except the variables of containers."""
    if isinstance(members, list):
        return [to_snake(item) for item in members]
    if not isinstance(members, dict):
        return members
    return {
        re.sub("(?<=[a-z0-9])([A-Z])", r"_\1", name).lower(): value if name == "Environment" else to_snake(value)
        for name, value in members.items()
    }


if __name__ == "__main__":
    image, uri = sys.argv[1:]
    place = Place(image, os.environ["SAGEMAKER_ROLE"], uri)
    client = Resources(boto3.session.Session(), place, "v3")
    prove_all(client, client.cloudwatch)
