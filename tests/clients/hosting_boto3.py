"""Checks all kinds of hosting with boto3. Usage: hosting_boto3.py SERVE-IMAGE PREFIX"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import boto3

from tests.clients.hosting_kinds import (
    CSV,
    ROW,
    VARIANT,
    HostingKind,
    Members,
    Settings,
    check_all_kinds,
    parse_captures,
    wait_until,
)


class Boto3Client:
    """A client that deploys, updates and calls endpoints with boto3."""

    def __init__(self, session: Any, settings: Settings, prefix: str) -> None:
        self.settings = settings
        self._prefix = prefix
        self.sagemaker, self.runtime, self.s3, self.cloudwatch = (
            session.client(service) for service in ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch")
        )

    def make_name(self, kind: HostingKind) -> str:
        return f"{self._prefix}-{kind.name}"

    # --- deployment and update ---

    def deploy(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        self._create_models(kind)
        self._create_config(kind, version=0)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-0")
        self._wait_for_endpoint(name)
        if kind.copies:
            self._create_component(kind)
            self._wait_for_component(name)

    def update(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        if kind.copies:
            specification = self._make_specification(kind, version=1)
            self.sagemaker.update_inference_component(InferenceComponentName=name, Specification=specification)
            self._wait_for_component(name)
            return
        self._create_config(kind, version=1)
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1")
        self._wait_for_endpoint(name)

    def _create_models(self, kind: HostingKind) -> None:
        for version in (0, 1):
            request = self.settings.make_model(kind, version, f"{self.make_name(kind)}-{version}")
            self.sagemaker.create_model(**request)

    def _create_config(self, kind: HostingKind, version: int) -> None:
        name = self.make_name(kind)
        models = [f"{name}-{version}", f"{name}-{1 - version}"]
        self.sagemaker.create_endpoint_config(**self.settings.make_config(kind, f"{name}-{version}", models))

    def _create_component(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        self.sagemaker.create_inference_component(
            InferenceComponentName=name,
            EndpointName=name,
            VariantName=VARIANT,
            Specification=self._make_specification(kind, version=0),
            RuntimeConfig={"CopyCount": kind.copies},
        )

    def _make_specification(self, kind: HostingKind, version: int) -> dict[str, Any]:
        requirements = {"NumberOfCpuCoresRequired": 1, "MinMemoryRequiredInMb": 256}
        return {"ModelName": f"{self.make_name(kind)}-{version}", "ComputeResourceRequirements": requirements}

    # --- waiting: boto3's waiters poll every 30 seconds by default, but the endpoints start in a few seconds ---

    def _wait_for_endpoint(self, name: str) -> None:
        waiter = self.sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})

    def _wait_for_component(self, name: str) -> None:
        describe = self.sagemaker.describe_inference_component
        wait_until(lambda: describe(InferenceComponentName=name)["InferenceComponentStatus"] in ("InService", "Failed"))
        description = describe(InferenceComponentName=name)
        assert description["InferenceComponentStatus"] == "InService", description["FailureReason"]

    # --- requests ---

    def call(self, kind: HostingKind) -> str:
        request = {"EndpointName": self.make_name(kind), **CSV, **kind.target}
        if kind.copies:
            request["InferenceComponentName"] = self.make_name(kind)
        if kind.operation == "InvokeEndpointAsync":
            location = self.runtime.invoke_endpoint_async(**request, InputLocation=f"{self.settings.uri}/row.csv")
            return self._read_response(location["OutputLocation"])
        if kind.operation == "InvokeEndpointWithResponseStream":
            events = self.runtime.invoke_endpoint_with_response_stream(**request, Body=ROW)["Body"]
            return b"".join(event["PayloadPart"]["Bytes"] for event in events).decode()
        return str(self.runtime.invoke_endpoint(**request, Body=ROW)["Body"].read().decode().strip())

    def _read_response(self, uri: str) -> str:
        """Wait for the response of an asynchronous request; return it."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        wait_until(lambda: self.s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"])
        return str(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode().strip())

    # --- captured data and deletion ---

    def read_captures(self, kind: HostingKind) -> Mapping[str, Sequence[Members]]:
        bucket, _, prefix = self.settings.uri.removeprefix("s3://").partition("/")
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{prefix}/captured/{self.make_name(kind)}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        files = {key: self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys}
        return parse_captures(self.make_name(kind), files)

    def delete(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
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
    client = Boto3Client(boto3.session.Session(), Settings(image, os.environ["SAGEMAKER_ROLE"], uri), "boto3")
    check_all_kinds(client, client.cloudwatch)
