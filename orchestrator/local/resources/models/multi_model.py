"""Multi-model containers, which load models from an S3 prefix when requests name them.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-endpoints.html
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.resources.models.chain import Sender
from microjobs_orchestrator.local.resources.models.client import Body, Response
from microjobs_orchestrator.local.resources.models.model_data import (
    ModelData,
    extract,
    is_multi_model,
    make_etag,
    read_source,
)
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.s3.store import ObjectStore

MODELS_PATH = "/models"
"""The path of the API with which a multi-model container loads models."""
TARGET_MODEL_HEADER = "X-Amzn-SageMaker-Target-Model"

Version = tuple[tuple[str, str, int, int], ...]
"""A value that changes when the objects of a model change. It is computed without reading the objects."""


def check_multi_model_members(store: ObjectStore, container: Mapping[str, Any]) -> None:
    """Raise ValidationError if the Mode of a container does not allow its other members, if the prefix of the models is
    one object, or if the prefix's bucket does not exist."""
    if not is_multi_model(container):
        if "MultiModelConfig" in container:
            raise ValidationError("MultiModelConfig requires Mode MultiModel: set Mode, or remove MultiModelConfig.")
        return
    source = read_source(container)
    uri = source["S3Uri"]
    if "ModelPackageName" in container or uri is None:
        raise ValidationError(
            "A container with Mode MultiModel must have a ModelDataUrl or a ModelDataSource, and no ModelPackageName."
        )
    if "ModelDataSource" in container and (source["S3DataType"] != "S3Prefix" or "ETag" in source):
        raise ValidationError(f"Mode MultiModel requires S3DataType S3Prefix for {uri}, and no ETag.")
    _check_prefix(store, uri)


def refuse_multi_model(model: Mapping[str, Any], feature: str) -> None:
    """Raise ValidationError if the model of a CreateModel request has a multi-model container."""
    containers = [model.get("PrimaryContainer", {}), *model.get("Containers", [])]
    if any(is_multi_model(container) for container in containers):
        raise ValidationError(
            f"{feature} does not support models with Mode MultiModel, such as {model['ModelName']}: use a model with "
            "one archive."
        )


def _check_prefix(store: ObjectStore, uri: str) -> None:
    """Raise ValidationError if a prefix is one object, or its bucket does not exist. Models may be added later."""
    bucket, key = parse_uri(uri)
    if not store.has_bucket(bucket):
        raise ValidationError(f"Could not find model data at {uri}: bucket {bucket} does not exist.")
    try:
        is_object = not key.endswith("/") and bool(store.get(bucket, key))
    except ServiceError:
        return
    if is_object:
        folder, _, name = uri.rpartition("/")
        raise ValidationError(
            f"Mode MultiModel requires a prefix of archives, but {uri} is one object: use {folder}/ in CreateModel, "
            f"and TargetModel {name} in InvokeEndpoint."
        )


@dataclass(frozen=True)
class TargetModel:
    """One version of a model below the prefix of a multi-model container."""

    target: str
    """The TargetModel of requests."""
    uri: str
    data: ModelData
    name: str
    """The name of the model in the container. It depends on the data: a model whose data changes gets another name."""

    def prepare(self, folder: Path) -> None:
        """Make a new folder with the files of the model.

        Raise ServiceError ValidationError if the archive cannot be extracted, and OSError if the disk is full.
        """
        try:
            if self.data.is_archive:
                extract(self.data.objects[0][1], folder)
            else:
                inputs.link_objects(self.data.objects, folder)
        except CannotRunError as error:
            raise ServiceError("ValidationError", str(error)) from error


@dataclass(frozen=True)
class ModelSender:
    """Sends requests for predictions to a loaded model of a multi-model container."""

    sender: Sender
    """Sends requests to the container."""
    model: TargetModel

    def open(self, method: str, path: str, body: Body, headers: Mapping[str, str], *, timeout: float) -> Response:  # noqa: ARG002
        """Send a request to the path of the model, as `Sender.open` does."""
        headers = {**headers, TARGET_MODEL_HEADER: self.model.target}
        return self.sender.open(method, f"{MODELS_PATH}/{self.model.name}/invoke", body, headers, timeout=timeout)


class ModelFinder:
    """Finds the models below the prefix of a multi-model container."""

    def __init__(self, store: ObjectStore, container: Mapping[str, Any]) -> None:
        source = read_source(container)
        self._store = store
        self._prefix = source["S3Uri"].removesuffix("/") + "/"
        self._has_archives = source["CompressionType"] == "Gzip"
        self._known_models: dict[str, tuple[Version, TargetModel]] = {}
        """The results of earlier searches, by target: the ETag of an object is read only if the object has changed."""

    def find(self, target: str) -> TargetModel:
        """Return the model that a request names. Raise ServiceError ValidationError if it does not exist."""
        uri = self._prefix + target
        try:
            data = self._select_data(uri)
            version = tuple(stored_object.version for _, stored_object in data.objects)
            known_version, model = self._known_models.get(target, (None, None))
            if model is None or version != known_version:
                model = TargetModel(target, uri, data, self._make_name(target, data))
                self._known_models[target] = version, model
        except ServiceError as error:
            raise _make_missing_error(uri) from error
        return model

    def _select_data(self, uri: str) -> ModelData:
        bucket, key = parse_uri(uri)
        if not self._has_archives:
            return ModelData(inputs.select_objects(self._store, f"{uri.removesuffix('/')}/", "TargetModel"))
        if key.endswith("/"):
            raise _make_missing_error(uri)
        return ModelData([(Path(key).name, self._store.get(bucket, key))], is_archive=True)

    def _make_name(self, target: str, data: ModelData) -> str:
        etag = make_etag(self._store, ModelData(data.objects, is_prefix=True))
        return hashlib.sha256(f"{target}\0{etag}".encode(errors="surrogateescape")).hexdigest()[:32]


def _make_missing_error(uri: str) -> ServiceError:
    bucket, key = parse_uri(uri)
    return ServiceError(
        "ValidationError",
        f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object located "
        "at the URL: TargetModel is the path of an archive below the prefix of the model.",
    )
