"""Proves all kinds of hosting with boto3. Usage: hosting_boto3.py SERVE-IMAGE PREFIX"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import boto3

from tests.clients.hosting_kinds import (
    CSV,
    ROW,
    VARIANT,
    Kind,
    Members,
    Place,
    parse_captures,
    prove_all,
    wait_until,
)


class Boto3:
    """Deploys, updates and calls endpoints with boto3."""

    def __init__(self, session: Any, place: Place, prefix: str) -> None:
        self.place = place
        self._prefix = prefix
        self.sagemaker, self.runtime, self.s3, self.cloudwatch = (
            session.client(service) for service in ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch")
        )

    def name(self, kind: Kind) -> str:
        return f"{self._prefix}-{kind.name}"

    # --- versions ---

    def deploy(self, kind: Kind) -> None:
        name = self.name(kind)
        self._create_models(kind)
        self._create_config(kind, 0)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-0")
        self._wait_for_endpoint(name)
        if kind.copies:
            self._create_component(kind)
            self._wait_for_component(name)

    def update(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.copies:
            specification = self._make_specification(kind, 1)
            self.sagemaker.update_inference_component(InferenceComponentName=name, Specification=specification)
            self._wait_for_component(name)
            return
        self._create_config(kind, 1)
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1")
        self._wait_for_endpoint(name)

    def _create_models(self, kind: Kind) -> None:
        for version in (0, 1):
            request = self.place.make_model(kind, version, f"{self.name(kind)}-{version}")
            self.sagemaker.create_model(**request)

    def _create_config(self, kind: Kind, version: int) -> None:
        name = self.name(kind)
        models = [f"{name}-{version}", f"{name}-{1 - version}"]
        self.sagemaker.create_endpoint_config(**self.place.make_config(kind, f"{name}-{version}", models))

    def _create_component(self, kind: Kind) -> None:
        name = self.name(kind)
        self.sagemaker.create_inference_component(
            InferenceComponentName=name,
            EndpointName=name,
            VariantName=VARIANT,
            Specification=self._make_specification(kind, 0),
            RuntimeConfig={"CopyCount": kind.copies},
        )

    def _make_specification(self, kind: Kind, version: int) -> dict[str, Any]:
        requirements = {"NumberOfCpuCoresRequired": 1, "MinMemoryRequiredInMb": 256}
        return {"ModelName": f"{self.name(kind)}-{version}", "ComputeResourceRequirements": requirements}

    # --- waiting: boto3's waiters poll every 30 seconds by default, and the endpoints start in a few seconds ---

    def _wait_for_endpoint(self, name: str) -> None:
        waiter = self.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})

    def _wait_for_component(self, name: str) -> None:
        describe = self.sagemaker.describe_inference_component
        wait_until(lambda: describe(InferenceComponentName=name)["InferenceComponentStatus"] in ("InService", "Failed"))
        found = describe(InferenceComponentName=name)
        assert found["InferenceComponentStatus"] == "InService", found["FailureReason"]

    # --- requests ---

    def call(self, kind: Kind) -> str:
        request = {"EndpointName": self.name(kind), **CSV, **kind.target}
        if kind.copies:
            request["InferenceComponentName"] = self.name(kind)
        if kind.operation == "InvokeEndpointAsync":
            location = self.runtime.invoke_endpoint_async(**request, InputLocation=f"{self.place.uri}/row.csv")
            return self._read_answer(location["OutputLocation"])
        if kind.operation == "InvokeEndpointWithResponseStream":
            events = self.runtime.invoke_endpoint_with_response_stream(**request, Body=ROW)["Body"]
            return b"".join(event["PayloadPart"]["Bytes"] for event in events).decode()
        return str(self.runtime.invoke_endpoint(**request, Body=ROW)["Body"].read().decode().strip())

    def _read_answer(self, uri: str) -> str:
        """Wait for the response of an asynchronous request; return it."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        wait_until(lambda: self.s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"])
        return str(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode().strip())

    # --- the end ---

    def read_captures(self, kind: Kind) -> Mapping[str, Sequence[Members]]:
        bucket, _, prefix = self.place.uri.removeprefix("s3://").partition("/")
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{prefix}/captured/{self.name(kind)}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        files = {key: self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys}
        return parse_captures(self.name(kind), files)

    def delete(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.copies:
            self.sagemaker.delete_inference_component(InferenceComponentName=name)
            components = self.sagemaker.list_inference_components
            wait_until(lambda: not components(NameContains=name)["InferenceComponents"])
        self.sagemaker.delete_endpoint(EndpointName=name)
        self._wait_for_deletion(name)

    def _wait_for_deletion(self, name: str) -> None:
        waiter = self.sagemaker.get_waiter("endpoint_deleted")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


if __name__ == "__main__":
    image, uri = sys.argv[1:]
    client = Boto3(boto3.session.Session(), Place(image, os.environ["SAGEMAKER_ROLE"], uri), "boto3")
    prove_all(client, client.cloudwatch)
