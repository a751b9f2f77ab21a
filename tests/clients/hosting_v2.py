"""Proves all kinds of hosting with the classes of the SageMaker SDK v2; with its boto3 session if it has no class.

Runs in the SDK's virtual environment. Usage: hosting_v2.py SERVE-IMAGE PREFIX
"""

import os
import sys
import time
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

from tests.clients.hosting_boto3 import Boto3
from tests.clients.hosting_kinds import ENVIRONMENT, INSTANCES, KINDS, Kind, Members, Place, parse_captures, prove_all

# The SDK polls every 5 to 30 seconds; the endpoints start in a few.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.3))
INSTANCE_TYPE = INSTANCES["InstanceType"]
SERVERLESS = ServerlessInferenceConfig(1024, 5)
WITHOUT_CLASS = ("direct", "shadow")
"""Kinds for which this SDK has no class."""


class Classes(Boto3):
    """Deploys, updates and calls endpoints with the SDK's classes."""

    def __init__(self, session: Any, place: Place) -> None:
        super().__init__(session.boto_session, place, "v2")
        self._session = session
        self._predictors = {kind.name: self._make_predictor(kind) for kind in KINDS}

    def _make_predictor(self, kind: Kind) -> Predictor:
        component = {"component_name": self.name(kind)} if kind.copies else {}
        codec = {"serializer": CSVSerializer(), "deserializer": StringDeserializer(accept="text/csv")}
        return Predictor(self.name(kind), self._session, **codec, **component)

    def _make_model(self, kind: Kind, version: int) -> Any:
        """Return the SDK's object for the model of a version."""
        name, archives = f"{self.name(kind)}-{version}", kind.archives[version]
        common = {"env": ENVIRONMENT, "sagemaker_session": self._session}
        if kind.name == "multi-model":
            model = Model(self.place.image, role=self.place.role, **common)
            models = MultiDataModel(name, f"{self.place.uri}/{name}/", model=model, sagemaker_session=self._session)
            models.add_model(self.place.find_archive(f"{archives[0]}model"), "model.tar.gz")
            assert list(models.list_models()) == ["model.tar.gz"]
            return models
        models = [
            Model(
                self.place.image,
                self.place.find_archive(archive),
                self.place.role,
                name=name if len(archives) == 1 else f"{name}-{number}",
                **common,
            )
            for number, archive in enumerate(archives)
        ]
        return models[0] if len(models) == 1 else self._make_pipeline(name, models)

    def _make_pipeline(self, name: str, models: Sequence[Model]) -> PipelineModel:
        return PipelineModel(models, self.place.role, name=name, sagemaker_session=self._session)

    def _make_options(self, kind: Kind) -> dict[str, Any]:
        """Return the options of `deploy` for a kind."""
        instances = {"initial_instance_count": 1, "instance_type": INSTANCE_TYPE}
        match kind.name:
            case "serverless":
                return {"serverless_inference_config": SERVERLESS}
            case "asynchronous":
                return {**instances, "async_inference_config": AsyncInferenceConfig(f"{self.place.uri}/answers")}
            case "components":
                requests = {"num_cpus": 1, "memory": 256, "copies": kind.copies}
                return {
                    **instances,
                    "endpoint_type": EndpointType.INFERENCE_COMPONENT_BASED,
                    "inference_component_name": self.name(kind),
                    "resources": ResourceRequirements(requests=requests),
                }
        destination = f"{self.place.uri}/captured"
        capture = DataCaptureConfig(True, 100, destination, sagemaker_session=self._session)
        return {**instances, "data_capture_config": capture}

    def deploy(self, kind: Kind) -> None:
        if kind.name in WITHOUT_CLASS:
            return super().deploy(kind)
        self._make_model(kind, 0).deploy(endpoint_name=self.name(kind), **self._make_options(kind))
        return None

    def update(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.name in WITHOUT_CLASS:
            return super().update(kind)
        model = self._make_model(kind, 1)
        if isinstance(model, PipelineModel):
            model.deploy(endpoint_name=name, update_endpoint=True, **self._make_options(kind))
            return None
        if isinstance(model, MultiDataModel):  # its `create` fails in this version
            container = model.prepare_container_def(INSTANCE_TYPE)
            self._session.create_model(model.name, self.place.role, container)
        else:
            model.create(instance_type=INSTANCE_TYPE)
        match kind.name:
            case "components":
                specification = self._make_specification(kind, 1)
                copies = {"CopyCount": kind.copies}
                self._session.update_inference_component(name, specification, copies, wait=True)
            case "serverless":
                variant = production_variant(model.name, serverless_inference_config=SERVERLESS._to_request_dict())
                self._session.create_endpoint_config_from_existing(name, f"{name}-1", new_production_variants=[variant])
                self._session.update_endpoint(name, f"{name}-1")
            case _:
                Predictor(name, self._session).update_endpoint(1, INSTANCE_TYPE, model_name=model.name)
        return None

    def call(self, kind: Kind) -> str:
        predictor = self._predictors[kind.name]
        if kind.operation == "InvokeEndpointAsync":
            waiter = WaiterConfig(max_attempts=200, delay=1)
            return str(AsyncPredictor(predictor, kind.name).predict([1, 2, 3], waiter_config=waiter)).strip()
        if kind.operation == "InvokeEndpointWithResponseStream":
            return b"".join(predictor.predict_stream([1, 2, 3])).decode()
        return str(predictor.predict([1, 2, 3], initial_args=dict(kind.target))).strip()

    def read_captures(self, kind: Kind) -> Mapping[str, Sequence[Members]]:
        folder = f"{self.place.uri}/captured/{self.name(kind)}"
        uris = S3Downloader.list(folder, sagemaker_session=self._session)
        texts = {uri: S3Downloader.read_file(uri, sagemaker_session=self._session) for uri in uris}
        return parse_captures(self.name(kind), texts)

    def delete(self, kind: Kind) -> None:
        name = self.name(kind)
        if kind.copies:
            self._session.delete_inference_component(name, wait=True)
        self._session.delete_endpoint(name)
        self._wait_for_deletion(name)


if __name__ == "__main__":
    image, uri = sys.argv[1:]
    client = Classes(sagemaker.Session(), Place(image, os.environ["SAGEMAKER_ROLE"], uri))
    prove_all(client, client.cloudwatch)
