"""Checks all kinds of hosting with the classes of the SageMaker SDK v2.

For some kinds, the SDK has no class. The program checks them with the boto3 session of the SDK.

Runs in the SDK's virtual environment. Usage: hosting_v2.py SERVE-IMAGE PREFIX

PREFIX is an S3 URI, below which the archives of the models are.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.compute_resource_requirements.resource_requirements import ResourceRequirements
from sagemaker.deserializers import StringDeserializer
from sagemaker.enums import EndpointType
from sagemaker.model import Model
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.pipeline import PipelineModel
from sagemaker.predictor import Predictor
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.s3 import S3Downloader
from sagemaker.serializers import CSVSerializer
from sagemaker.serverless import ServerlessInferenceConfig
from sagemaker.session import production_variant

from tests.clients.hosting_boto3 import Boto3Client
from tests.clients.hosting_kinds import (
    ENVIRONMENT,
    INSTANCE_MEMBERS,
    KINDS,
    HostingKind,
    Members,
    Settings,
    check_all_kinds,
    parse_captures,
)
from tests.clients.polling import poll_quickly

poll_quickly()
INSTANCE_TYPE = INSTANCE_MEMBERS["InstanceType"]
SERVERLESS = ServerlessInferenceConfig(memory_size_in_mb=1024, max_concurrency=5)
KINDS_WITHOUT_CLASS = ("direct", "shadow")
"""Kinds for which this SDK has no class. In the kind `direct`, each request names its container."""


class SdkClassClient(Boto3Client):
    """A client that deploys, updates and calls endpoints with the SDK's classes."""

    def __init__(self, session: Any, settings: Settings) -> None:
        super().__init__(session.boto_session, settings, "v2")
        self._session = session
        self._predictors = {kind.name: self._make_predictor(kind) for kind in KINDS}

    def _make_predictor(self, kind: HostingKind) -> Predictor:
        component = {"component_name": self.make_name(kind)} if kind.copies else {}
        codec = {"serializer": CSVSerializer(), "deserializer": StringDeserializer(accept="text/csv")}
        return Predictor(self.make_name(kind), self._session, **codec, **component)

    def _make_model(self, kind: HostingKind, version: int) -> Any:
        """Return the SDK's object for the model of a version."""
        name, archives = f"{self.make_name(kind)}-{version}", kind.archives[version]
        common = {"env": ENVIRONMENT, "sagemaker_session": self._session}
        if kind.name == "multi-model":  # `archives` has one item: a prefix, which ends with a slash
            model = Model(self.settings.image, role=self.settings.role, **common)
            models = MultiDataModel(name, f"{self.settings.uri}/{name}/", model=model, sagemaker_session=self._session)
            models.add_model(self.settings.make_archive_uri(f"{archives[0]}model"), "model.tar.gz")
            assert list(models.list_models()) == ["model.tar.gz"]
            return models
        models = [
            Model(
                self.settings.image,
                self.settings.make_archive_uri(archive),
                self.settings.role,
                name=name if len(archives) == 1 else f"{name}-{number}",
                **common,
            )
            for number, archive in enumerate(archives)
        ]
        return models[0] if len(models) == 1 else self._make_pipeline(name, models)

    def _make_pipeline(self, name: str, models: Sequence[Model]) -> PipelineModel:
        return PipelineModel(models, self.settings.role, name=name, sagemaker_session=self._session)

    def _make_options(self, kind: HostingKind) -> dict[str, Any]:
        """Return the options of `deploy` for a kind."""
        instances = {"initial_instance_count": 1, "instance_type": INSTANCE_TYPE}
        match kind.name:
            case "serverless":
                return {"serverless_inference_config": SERVERLESS}
            case "asynchronous":
                return {**instances, "async_inference_config": AsyncInferenceConfig(f"{self.settings.uri}/answers")}
            case "components":
                requests = {"num_cpus": 1, "memory": 256, "copies": kind.copies}
                return {
                    **instances,
                    "endpoint_type": EndpointType.INFERENCE_COMPONENT_BASED,
                    "inference_component_name": self.make_name(kind),
                    "resources": ResourceRequirements(requests=requests),
                }
        destination = f"{self.settings.uri}/captured"
        capture = DataCaptureConfig(
            enable_capture=True,
            sampling_percentage=100,
            destination_s3_uri=destination,
            sagemaker_session=self._session,
        )
        return {**instances, "data_capture_config": capture}

    def deploy(self, kind: HostingKind) -> None:
        if kind.name in KINDS_WITHOUT_CLASS:
            return super().deploy(kind)
        self._make_model(kind, version=0).deploy(endpoint_name=self.make_name(kind), **self._make_options(kind))
        return None

    def update(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        if kind.name in KINDS_WITHOUT_CLASS:
            return super().update(kind)
        model = self._make_model(kind, version=1)
        if isinstance(model, PipelineModel):
            model.deploy(endpoint_name=name, update_endpoint=True, **self._make_options(kind))
            return None
        if isinstance(model, MultiDataModel):  # `MultiDataModel.create` fails in this version of the SDK
            container = model.prepare_container_def(INSTANCE_TYPE)
            self._session.create_model(model.name, self.settings.role, container)
        else:
            model.create(instance_type=INSTANCE_TYPE)
        match kind.name:
            case "components":
                specification = self._make_specification(kind, version=1)
                copies = {"CopyCount": kind.copies}
                self._session.update_inference_component(name, specification, copies, wait=True)
            case "serverless":
                variant = production_variant(model.name, serverless_inference_config=SERVERLESS._to_request_dict())
                self._session.create_endpoint_config_from_existing(name, f"{name}-1", new_production_variants=[variant])
                self._session.update_endpoint(name, f"{name}-1")
            case _:
                Predictor(name, self._session).update_endpoint(1, INSTANCE_TYPE, model_name=model.name)
        return None

    def call(self, kind: HostingKind) -> str:
        predictor = self._predictors[kind.name]
        if kind.operation == "InvokeEndpointAsync":
            waiter = WaiterConfig(max_attempts=200, delay=1)
            return str(AsyncPredictor(predictor, kind.name).predict([1, 2, 3], waiter_config=waiter)).strip()
        if kind.operation == "InvokeEndpointWithResponseStream":
            return b"".join(predictor.predict_stream([1, 2, 3])).decode()
        return str(predictor.predict([1, 2, 3], initial_args=dict(kind.target))).strip()

    def read_captures(self, kind: HostingKind) -> Mapping[str, Sequence[Members]]:
        folder = f"{self.settings.uri}/captured/{self.make_name(kind)}"
        uris = S3Downloader.list(folder, sagemaker_session=self._session)
        texts = {uri: S3Downloader.read_file(uri, sagemaker_session=self._session) for uri in uris}
        return parse_captures(self.make_name(kind), texts)

    def delete(self, kind: HostingKind) -> None:
        name = self.make_name(kind)
        if kind.copies:
            self._session.delete_inference_component(name, wait=True)
        self._session.delete_endpoint(name)
        self._wait_for_deletion(name)


if __name__ == "__main__":
    image, uri = sys.argv[1:]
    client = SdkClassClient(sagemaker.Session(), Settings(image, os.environ["SAGEMAKER_ROLE"], uri))
    check_all_kinds(client, client.cloudwatch)
    sys.stdout.flush()
    os._exit(0)  # threads of the SDK's AsyncPredictor would wait for error objects for another 100 s
