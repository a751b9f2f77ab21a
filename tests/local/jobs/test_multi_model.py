"""Multi-model endpoints: which models a container loads and unloads, and the errors that clients receive."""

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.resources.endpoints import (
    container_replica,
    multi_model_container,
    multi_model_replica,
)
from microjobs_orchestrator.local.resources.endpoints.loaded_models import LoadedModels
from microjobs_orchestrator.local.resources.endpoints.model_loader import ModelLoader, ModelSpace
from microjobs_orchestrator.local.resources.endpoints.model_metrics import ModelMetrics
from microjobs_orchestrator.local.resources.inference_components.specifications import find_model
from microjobs_orchestrator.local.resources.model_registry import sources
from microjobs_orchestrator.local.resources.models.capabilities import MULTI_MODELS_LABEL
from microjobs_orchestrator.local.resources.models.client import NoResponseError
from microjobs_orchestrator.local.resources.models.model_data import ModelData
from microjobs_orchestrator.local.resources.models.multi_model import ModelFinder, TargetModel
from microjobs_orchestrator.local.runtimes.base import Exit
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.services import sagemaker_runtime
from tests.local.jobs.conftest import TIMEOUT_SECONDS, ServerParts
from tests.local.jobs.fake_models import ContainerModels, ModelsBehaviour, block_calls
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until


class MultiModelEndpoint:
    """Endpoint `e` with the models below `s3://bucket/models/`."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self.image_behaviour = parts.runtime.behaviours["model"]
        self.image_behaviour.labels = {MULTI_MODELS_LABEL: "true"}
        self.models_behaviour = self.image_behaviour.models_api = ModelsBehaviour()
        self.invoker = Invoker(parts)

    def start(self, variant: dict[str, object] | None = None, **container: Any) -> dict[str, object]:
        """Start the endpoint, with additional members of its variant and of its container; return its description."""
        self.parts.make_model(Mode="MultiModel", ModelDataUrl="s3://bucket/models/", **container)
        return self.parts.deploy(main=variant or {})

    def put(self, *names: str, content: str = "") -> None:
        """Store one archive per name. Its only file contains `content`, or the name if `content` is empty."""
        for name in names:
            data = (content or name).encode()
            file, info = io.BytesIO(), tarfile.TarInfo("model.txt")
            info.size = len(data)
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                archive.addfile(info, io.BytesIO(data))
            self.parts.put(f"models/{name}", file.getvalue())

    def invoke(self, target: str, body: bytes = b"x") -> str:
        return str(self.invoker(body, **{"X-Amzn-SageMaker-Target-Model": target}).data.decode())

    def read_error(self, target: str) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self.invoke(target)
        return caught.value

    @property
    def loaded_contents(self) -> list[str]:
        """The contents of the models that the container has loaded."""
        (host,) = self.parts.running_hosts
        return sorted(content for _, content in host.models.loaded_models.values())

    @property
    def file_contents(self) -> list[str]:
        """The contents of the models that are in the container's files."""
        (host,) = self.parts.running_hosts
        return sorted(host.models.contents_by_folder.values())


@pytest.fixture
def endpoint(parts: ServerParts) -> MultiModelEndpoint:
    return MultiModelEndpoint(parts)


def test_requests_load_the_models_that_they_name(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a", "folder/b.tar.gz")  # MultiDataModel.add_model also adds models after the endpoint's start
    assert endpoint.invoke("a", b"1") == "a:1"
    assert endpoint.invoke("folder/b.tar.gz", b"2") == "folder/b.tar.gz:2"
    assert endpoint.invoke("a", b"3") == "a:3"
    assert endpoint.models_behaviour.actions == ["load a", "load folder/b.tar.gz"]
    assert set(endpoint.models_behaviour.targets) == {None, "a", "folder/b.tar.gz"}


def test_container_has_the_variable_of_multi_model_containers(endpoint: MultiModelEndpoint) -> None:
    endpoint.start(Environment={"A": "1"})
    (host,) = endpoint.parts.running_hosts
    assert host.plan.environment.items() >= {"SAGEMAKER_MULTI_MODEL": "true", "A": "1"}.items()


def test_model_is_loaded_once_for_parallel_first_requests(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    with ThreadPoolExecutor(8) as pool:
        with block_calls(endpoint.models_behaviour, "before_load") as begun:
            requests = [pool.submit(endpoint.invoke, "a", b"%d" % number) for number in range(8)]
            begun.wait()
        assert [request.result() for request in requests] == [f"a:{number}" for number in range(8)]
    assert endpoint.models_behaviour.actions == ["load a"]


def test_least_recently_used_model_is_unloaded_when_the_container_is_full(endpoint: MultiModelEndpoint) -> None:
    endpoint.models_behaviour.capacity = 2
    endpoint.start()
    endpoint.put("a", "b", "c")
    for target in ("a", "b", "a", "c"):
        assert endpoint.invoke(target) == f"{target}:x"
    assert endpoint.models_behaviour.actions == ["load a", "load b", "full c", "unload b", "load c"]
    assert (endpoint.loaded_contents, endpoint.file_contents) == (["a", "c"], ["a", "c"])


def test_load_waits_while_all_other_models_are_in_use(endpoint: MultiModelEndpoint) -> None:
    endpoint.models_behaviour.capacity = 1
    endpoint.start()
    endpoint.put("a", "b")
    with ThreadPoolExecutor(2) as pool:
        with block_calls(endpoint.models_behaviour, "before_invoke") as begun:
            response_of_a = pool.submit(endpoint.invoke, "a")
            begun.wait()
            response_of_b = pool.submit(endpoint.invoke, "b")
            wait_until(lambda: "full b" in endpoint.models_behaviour.actions)
            time.sleep(0.1)  # a wrong implementation would unload the model in this time
            assert endpoint.loaded_contents == ["a"]
        assert (response_of_a.result(), response_of_b.result()) == ("a:x", "b:x")
    assert endpoint.loaded_contents == ["b"]


class FullLoader(ModelLoader):
    """A loader that never has enough space for the model `b`."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    def load(self, model: TargetModel, space: ModelSpace, deadline: float) -> None:  # noqa: ARG002
        if model.name == "b":
            self.begun.set()
            while space.unload_another_model():
                pass
            self.ended.set()
            raise NoResponseError("the container was stopped")


def test_load_that_waits_for_space_ends_when_the_endpoint_stops(parts: ServerParts) -> None:
    loader, metrics = FullLoader(), ModelMetrics(parts.context.metrics, "e", "main")
    models = LoadedModels(loader, count_starts=lambda: 1, metrics=metrics, max_bytes=1, is_caching=True)
    a, b = (TargetModel(target=name, uri="", data=ModelData(), name=name) for name in "ab")
    with models.use(a, TIMEOUT_SECONDS), ThreadPoolExecutor(1) as pool:
        loading = pool.submit(lambda: models.use(b, TIMEOUT_SECONDS).__enter__())
        loader.begun.wait()
        models.close()
        error = loading.exception()  # after this error, the server sends the request to the next deployment
        assert (isinstance(error, NoResponseError), loader.ended.wait(TIMEOUT_SECONDS)) == (True, True)


def test_container_without_memory_for_any_model_is_a_model_error(endpoint: MultiModelEndpoint) -> None:
    endpoint.models_behaviour.capacity = 0
    endpoint.start()
    endpoint.put("a")
    error = endpoint.read_error("a")
    assert (error.code, error.status) == ("ModelError", 424)
    assert 'Received server error (507) from primary with message "no memory"' in error.message
    assert endpoint.file_contents == []


def test_hundreds_of_models_share_a_small_container(endpoint: MultiModelEndpoint) -> None:
    endpoint.models_behaviour.capacity = 5
    endpoint.start()
    names = [f"model-{number}" for number in range(300)]
    endpoint.put(*names)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(endpoint.invoke, names)) == [f"{name}:x" for name in names]
    assert len(endpoint.loaded_contents) <= 5
    assert endpoint.file_contents == endpoint.loaded_contents


def test_files_of_models_stay_below_the_volume_size(
    endpoint: MultiModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_model_replica, "GB", 100)
    endpoint.start({"VolumeSizeInGB": 1})
    endpoint.put("a", content="a" * 60)
    endpoint.put("b", content="b" * 60)
    endpoint.invoke("a")
    endpoint.invoke("b")
    assert endpoint.file_contents == ["b" * 60]
    endpoint.put("c", content="c" * 101)
    error = endpoint.read_error("c")
    assert "(507)" in error.message
    assert "increase VolumeSizeInGB" in error.message


def test_replaced_archive_is_loaded_by_the_next_request(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a", content="old")
    assert endpoint.invoke("a") == "old:x"
    endpoint.put("a", content="newer")
    assert endpoint.invoke("a") == "newer:x"
    wait_until(
        lambda: endpoint.models_behaviour.actions, lambda actions: actions == ["load old", "load newer", "unload old"]
    )
    wait_until(lambda: endpoint.file_contents, lambda files: files == ["newer"])


def test_uploading_the_same_archive_again_loads_nothing(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    endpoint.invoke("a")
    content = (endpoint.parts.home.buckets / "bucket/models/a").read_bytes()
    endpoint.parts.put("models/a", content)
    endpoint.invoke("a")
    assert endpoint.models_behaviour.actions == ["load a"]


def test_deleted_archive_is_a_validation_error(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    endpoint.invoke("a")
    (endpoint.parts.home.buckets / "bucket/models/a").unlink()
    assert endpoint.read_error("a").code == "ValidationError"


def test_disabled_cache_unloads_models_after_each_request(endpoint: MultiModelEndpoint) -> None:
    endpoint.start(MultiModelConfig={"ModelCacheSetting": "Disabled"})
    endpoint.put("a")
    for _ in range(2):
        assert endpoint.invoke("a") == "a:x"
        wait_until(lambda: (endpoint.loaded_contents, endpoint.file_contents), lambda contents: contents == ([], []))
    assert endpoint.models_behaviour.actions == ["load a", "unload a"] * 2


def test_restarted_container_loads_the_models_again(
    endpoint: MultiModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_replica, "FIRST_RESTART_DELAY_SECONDS", 0.01)
    endpoint.start()
    endpoint.put("a")
    endpoint.invoke("a")
    endpoint.parts.running_hosts[0].end(Exit(1))
    wait_until(lambda: endpoint.parts.running_hosts)
    assert wait_until(lambda: _try_to_invoke(endpoint, "a")) == "a:x"
    assert endpoint.models_behaviour.actions == ["load a", "load a"]


def _try_to_invoke(endpoint: MultiModelEndpoint, target: str) -> str:
    """Return the response, or an empty text after an error with status 503, which SDKs retry."""
    try:
        return endpoint.invoke(target)
    except ServiceError as error:
        if error.status != 503:
            raise
        return ""


def test_model_that_the_container_has_lost_is_loaded_again(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    endpoint.invoke("a")
    endpoint.parts.running_hosts[0].models.loaded_models.clear()
    assert endpoint.invoke("a") == "a:x"


def test_restarted_server_unloads_the_models_of_the_earlier_server(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a", "b", "c")
    for target in ("a", "b", "c"):
        endpoint.invoke(target)
    restarted_parts = endpoint.parts.restart()
    try:
        wait_until(lambda: restarted_parts.describe_endpoint()["EndpointStatus"] == "InService")
        wait_until(lambda: (endpoint.loaded_contents, endpoint.file_contents), lambda contents: contents == ([], []))
        restarted_endpoint: Any = wait_until(lambda: restarted_parts.registry.find("endpoint/e"))
        wait_until(restarted_endpoint.choose_replica)
        response = Invoker(restarted_parts)(b"1", **{"X-Amzn-SageMaker-Target-Model": "a"})
        assert response.data == b"a:1"
    finally:
        restarted_parts.close()


def test_model_that_is_loaded_already_is_used(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    endpoint.models_behaviour.load_status = 409
    # Status 409 means that the model is loaded already, so the server sends the request. This container has not loaded
    # the model, so the request fails.
    assert "no such model" in endpoint.read_error("a").message
    endpoint.models_behaviour.load_status = 200
    assert endpoint.invoke("a") == "a:x"


def test_error_of_a_load_is_a_model_error_of_all_waiting_requests(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a", "good")
    endpoint.models_behaviour.is_broken = lambda content: content == "a"
    with ThreadPoolExecutor(3) as pool:
        with block_calls(endpoint.models_behaviour, "before_load") as begun:
            requests = [pool.submit(endpoint.read_error, "a") for _ in range(3)]
            begun.wait()
        errors = [request.result() for request in requests]
    assert {error.code for error in errors} == {"ModelError"}
    assert 'Received server error (500) from primary with message "cannot load it"' in errors[0].message
    assert endpoint.invoke("good") == "good:x"
    assert endpoint.file_contents == ["good"]
    (lines,) = endpoint.parts.read_log("/aws/sagemaker/Endpoints/e").values()
    assert len([line for line in lines if "a was not loaded: status 500: cannot load it" in line]) == 1


def test_slow_load_returns_model_not_ready_and_continues(
    endpoint: MultiModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.start()
    endpoint.put("a")
    with block_calls(endpoint.models_behaviour, "before_load"):
        monkeypatch.setattr(sagemaker_runtime, "RESPONSE_TIMEOUT", 0.1)
        error = endpoint.read_error("a")
        assert (error.code, error.status) == ("ModelNotReadyException", 429)
    monkeypatch.undo()
    assert endpoint.invoke("a") == "a:x"
    assert endpoint.models_behaviour.actions == ["load a"]


@pytest.mark.parametrize("target", ["missing", "../secret", "folder/", "a//b"])
def test_target_that_does_not_exist_is_a_validation_error(endpoint: MultiModelEndpoint, target: str) -> None:
    endpoint.start()
    endpoint.parts.put("secret", b"x")
    error = endpoint.read_error(target)
    assert error.code == "ValidationError"
    assert f"Failed to download model data(bucket: bucket, key: models/{target})" in error.message


def test_damaged_archive_is_a_validation_error(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.parts.put("models/a", b"not an archive")
    error = endpoint.read_error("a")
    assert error.code == "ValidationError"
    assert 'Failed to extract model data archive from URL "s3://bucket/models/a"' in error.message


def test_request_without_target_model_is_a_validation_error(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    for path in ("invocations", "invocations-response-stream"):
        error = endpoint.invoker.read_error(path=path)
        assert (error.code, error.status) == ("ValidationError", 400)
        assert "missing a target model header" in error.message


def test_container_of_a_multi_model_endpoint_cannot_be_chosen(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    headers = {"X-Amzn-SageMaker-Target-Model": "a", "X-Amzn-SageMaker-Target-Container-Hostname": "one"}
    with pytest.raises(ServiceError, match="TargetContainerHostname one requires a model"):
        endpoint.invoker(b"x", **headers)


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, b"", "GET /models answered 404 instead of 200"),
        (200, b"no JSON", "must return {"),
        (200, b"[]", "must return {"),
        (200, b'{"models": [{"modelName": 1, "modelUrl": "/"}]}', "must return {"),
        (200, b'{"models": [], "nextPageToken": ["a"]}', "must return {"),
        (200, b'{"models": [], "nextPageToken": "again"}', "returned a nextPageToken 3 times"),
        (200, b" " * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)
def test_container_without_a_valid_models_api_fails_the_endpoint(
    endpoint: MultiModelEndpoint, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, sentence: str
) -> None:
    monkeypatch.setattr(multi_model_container, "MAX_PAGES", 3)
    monkeypatch.setattr(ContainerModels, "_list", lambda *_: (status, body))
    description = endpoint.start()
    assert description["EndpointStatus"] == "Failed"
    assert sentence in str(description["FailureReason"])


def test_update_sends_requests_to_the_new_container(endpoint: MultiModelEndpoint) -> None:
    endpoint.start()
    endpoint.put("a")
    endpoint.invoke("a")
    endpoint.parts.make_config("next")
    endpoint.parts.update_endpoint("next")
    endpoint.parts.wait_for_endpoint()
    assert endpoint.invoke("a") == "a:x"
    assert endpoint.models_behaviour.actions == ["load a", "load a"]


def test_uncompressed_models_are_folders_below_the_prefix(endpoint: MultiModelEndpoint) -> None:
    source = {"S3Uri": "s3://bucket/models", "S3DataType": "S3Prefix", "CompressionType": "None"}
    endpoint.parts.make_model(Mode="MultiModel", ModelDataSource={"S3DataSource": source})
    endpoint.parts.deploy()
    endpoint.parts.put("models/a/one.txt", b"1")
    endpoint.parts.put("models/a/two.txt", b"2")
    endpoint.parts.put("models/ab/three.txt", b"3")
    assert endpoint.invoke("a") == endpoint.invoke("a/") == "12:x"
    endpoint.parts.put("models/a/two.txt", b"4")
    assert endpoint.invoke("a") == "14:x"


def test_metrics_count_hits_and_measure_loads(endpoint: MultiModelEndpoint) -> None:
    endpoint.models_behaviour.capacity = 1
    endpoint.start()
    endpoint.put("a", "b")
    for target in ("a", "a", "a", "b"):
        endpoint.invoke(target)
    metrics = endpoint.parts.context.metrics
    metrics.flush()
    dimensions = {"EndpointName": "e", "VariantName": "main"}

    def sum_up(name: str, namespace: str = "AWS/SageMaker") -> tuple[float, float]:
        """Return the number of samples and their sum."""
        (series,) = metrics.find_series(namespace, name, dimensions)
        statistics = [point.statistics for point in metrics.read(series)]
        return sum(item.count for item in statistics), sum(item.total for item in statistics)

    assert sum_up("ModelCacheHit") == (4, 2)
    assert sum_up("LoadedModelCount", "/aws/sagemaker/Endpoints") == (4, 4)
    for name, count in (("ModelLoadingWaitTime", 2), ("ModelDownloadingTime", 2), ("ModelLoadingTime", 2)):
        assert (sum_up(name)[0], sum_up(name)[1] > 0) == (count, True)
    assert sum_up("ModelUnloadingTime")[0] == 1


def make_source(uri: str = "s3://bucket/models/", **members: str) -> dict[str, dict[str, str]]:
    return {"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "Gzip", **members}}


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({}, "must have a ModelDataUrl or a ModelDataSource"),
        ({"ModelDataUrl": "s3://missing-bucket/models/"}, "bucket missing-bucket does not exist"),
        ({"ModelDataUrl": "models/"}, "is not an S3 URI"),
        (
            {"ModelDataUrl": "s3://bucket/models/a.tar.gz"},
            "use s3://bucket/models/ in CreateModel, and TargetModel a.tar.gz in InvokeEndpoint",
        ),
        ({"ModelDataSource": make_source(S3DataType="S3Object")}, "requires S3DataType S3Prefix"),
        ({"ModelDataSource": make_source(ETag="x")}, "no ETag"),
        ({"ModelDataUrl": "s3://bucket/", "ModelPackageName": "p"}, "no ModelPackageName"),
        ({"Mode": "SingleModel", "MultiModelConfig": {}}, "MultiModelConfig requires Mode MultiModel"),
    ],
)
def test_invalid_multi_model_container_is_refused(
    endpoint: MultiModelEndpoint, container: dict[str, Any], message: str
) -> None:
    endpoint.put("a.tar.gz")
    with pytest.raises(ServiceError, match=message) as caught:
        endpoint.parts.make_model(**{"Mode": "MultiModel", **container})
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize("labels", [{}, {MULTI_MODELS_LABEL: "false"}])
def test_image_without_the_label_of_multi_model_containers_is_refused(
    endpoint: MultiModelEndpoint, labels: dict[str, str]
) -> None:
    endpoint.image_behaviour.labels = labels
    message = f"Your Ecr Image model does not contain required {MULTI_MODELS_LABEL}=true Docker label.*Add `LABEL"
    with pytest.raises(ServiceError, match=message):
        endpoint.parts.make_model(Mode="MultiModel", ModelDataUrl="s3://bucket/models/")
    endpoint.parts.make_model(image="not-pulled-yet", Mode="MultiModel", ModelDataUrl="s3://bucket/models/")


def test_archives_below_the_prefix_of_a_data_source_are_models(endpoint: MultiModelEndpoint) -> None:
    endpoint.parts.make_model(Mode="MultiModel", ModelDataSource=make_source("s3://bucket/models"))
    endpoint.parts.deploy()
    endpoint.put("a")
    assert endpoint.invoke("a") == "a:x"


def test_multi_model_containers_are_refused_where_requests_name_no_target_model(endpoint: MultiModelEndpoint) -> None:
    endpoint.parts.make_model(Mode="MultiModel", ModelDataUrl="s3://bucket/models/")
    with pytest.raises(ServiceError, match="Batch transform does not support models with Mode MultiModel, such as m"):
        endpoint.parts.start_transform()
    output = {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}
    with pytest.raises(ServiceError, match="AsyncInferenceConfig does not support models with Mode MultiModel"):
        endpoint.parts.make_config("c", asynchronous=output)
    with pytest.raises(ServiceError, match="An inference component does not support models with Mode MultiModel"):
        find_model(endpoint.parts.context, {"ModelName": "m"}, is_isolated=False)
    model = endpoint.parts.context.state.get("model", "m")
    assert model is not None
    with pytest.raises(ServiceError, match="A model package does not support models with Mode MultiModel"):
        sources.read_source(endpoint.parts.context, {"SourceUri": model.arn})


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFinder]:
    """A finder of the model `a`. The bucket has another object outside of the prefix."""
    home = Home(tmp_path_factory.mktemp("finder"))
    home.create()
    for key in ("models/a", "secret"):
        path = home.buckets / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    store = ObjectStore(home)
    yield ModelFinder(store, {"ModelDataUrl": "s3://bucket/models"})
    store.close()


@settings(max_examples=500, deadline=None)
@given(target=st.text(min_size=1) | st.text(st.sampled_from("./a%~\\\0 é\ud800"), min_size=1, max_size=40))
def test_any_target_is_a_model_below_the_prefix_or_missing(finder: ModelFinder, target: str) -> None:
    assert (target, find_key(finder, target)) in (("a", "models/a"), (target, "ValidationError"))


def find_key(finder: ModelFinder, target: str) -> str:
    """Return the key of a target, or the code of the error."""
    try:
        return finder.find(target).data.objects[0][1].key
    except ServiceError as error:
        return error.code
