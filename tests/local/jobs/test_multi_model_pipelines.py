"""Inference pipelines with a multi-model container: TargetModel chooses the model of this container."""

from contextlib import suppress
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.resources.endpoints import container_replica
from microjobs_orchestrator.local.resources.models.capabilities import BIND_TO_PORT_LABEL, MULTI_MODELS_LABEL
from microjobs_orchestrator.local.resources.models.client import NoResponseError
from microjobs_orchestrator.local.resources.models.operations import ModelOperations
from microjobs_orchestrator.local.runtimes.base import Exit
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, Reply
from tests.local.jobs.test_inference_pipelines import make_appending_behaviour
from tests.local.jobs.test_multi_model import MultiModelEndpoint
from tests.polling import wait_until


class MultiModelPipeline(MultiModelEndpoint):
    """Endpoint `e`, whose containers are `scale`, `many` with the models below `s3://bucket/models/`, and `label`."""

    def __init__(self, parts: ServerParts) -> None:
        super().__init__(parts)
        self.image_behaviour.labels = {MULTI_MODELS_LABEL: "true", BIND_TO_PORT_LABEL: "true"}
        parts.runtime.behaviours.update({name: make_appending_behaviour(name) for name in ("scale", "label")})

    def start(self, variant: dict[str, object] | None = None, **container: Any) -> dict[str, object]:
        multi_model_container = {
            "Image": "model",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://bucket/models/",
            **container,
        }
        containers = [{"Image": "scale"}, multi_model_container, {"Image": "label"}]
        named_containers = [
            {**item, "ContainerHostname": name} for item, name in zip(containers, CONTAINER_NAMES, strict=True)
        ]
        ModelOperations(self.parts.context, self.parts.registry).create(
            {"ModelName": "m", "Containers": named_containers}
        )
        return self.parts.deploy(main=variant or {})

    @property
    def host(self) -> FakeHost:
        return next(host for host in self.parts.running_hosts if host.plan.image == "model")


CONTAINER_NAMES = ("scale", "many", "label")


@pytest.fixture
def pipeline(parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> MultiModelPipeline:
    monkeypatch.setattr(container_replica, "FIRST_RESTART_DELAY_SECONDS", 0.05)
    new_pipeline = MultiModelPipeline(parts)
    new_pipeline.start()
    new_pipeline.put("a", "b")
    return new_pipeline


def test_target_model_responds_between_the_other_containers(pipeline: MultiModelPipeline) -> None:
    assert [pipeline.invoke(name) for name in ("a", "b", "a")] == [f"{name}:x>scale>label" for name in ("a", "b", "a")]
    assert pipeline.models_behaviour.actions == ["load a", "load b"]
    behaviours = pipeline.parts.runtime.behaviours
    for name in ("scale", "label"):
        assert all("X-Amzn-SageMaker-Target-Model" not in request.headers for request in behaviours[name].requests)


def test_only_the_multi_model_container_has_the_variable_for_its_mode(pipeline: MultiModelPipeline) -> None:
    variables = {
        host.plan.image: host.plan.environment.get("SAGEMAKER_MULTI_MODEL") for host in pipeline.parts.running_hosts
    }
    assert variables == {"scale": None, "model": "true", "label": None}


def test_errors_name_the_container(pipeline: MultiModelPipeline) -> None:
    pipeline.parts.runtime.behaviours["label"].invoke = lambda _: Reply(b"no", 404)
    assert pipeline.read_error("a").message.startswith("Received client error (404) from label")
    pipeline.models_behaviour.load_status = 500
    assert pipeline.read_error("b").message.startswith("Received server error (500) from many")


def test_request_without_target_model_is_refused(pipeline: MultiModelPipeline) -> None:
    with pytest.raises(ServiceError, match="requires TargetModel"):
        pipeline.invoker(b"x")


def test_model_that_the_container_has_lost_is_loaded_again(pipeline: MultiModelPipeline) -> None:
    pipeline.invoke("a")
    pipeline.host.models.loaded_models.clear()
    assert pipeline.invoke("a") == "a:x>scale>label"
    assert pipeline.models_behaviour.actions == ["load a", "load a"]


def test_restart_of_another_container_loads_the_models_again(pipeline: MultiModelPipeline) -> None:
    pipeline.invoke("a")
    next(host for host in pipeline.parts.running_hosts if host.plan.image == "scale").end(Exit(1))
    assert wait_until(lambda: try_invoke(pipeline)) == "a:x>scale>label"
    assert pipeline.models_behaviour.actions == ["load a", "load a"]


def test_silent_container_is_replaced_while_the_multi_model_container_lists_models(
    parts: ServerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("PING_INTERVAL_SECONDS", 0.02), ("SILENCE_TIMEOUT_SECONDS", 0.3)):
        monkeypatch.setattr(container_replica, name, seconds)
    MultiModelPipeline(parts).start()
    silent_host = next(host for host in parts.running_hosts if host.plan.image == "label")
    parts.runtime.behaviours["label"].unhealthy_hosts = {silent_host.name}
    replica = parts.registry.find("endpoint/e").choose_replica()  # type: ignore[union-attr]

    def has_ended_despite_answers() -> bool:
        """Let the multi-model container answer a request; return whether the silent container has ended."""
        with suppress(NoResponseError):  # the replica is restarting
            replica._container.list_models()
        return silent_host.has_ended

    wait_until(has_ended_despite_answers)


def try_invoke(pipeline: MultiModelPipeline) -> str:
    try:
        return pipeline.invoke("a")
    except ServiceError:
        return ""


def test_pipeline_without_the_models_api_fails_the_endpoint(parts: ServerParts) -> None:
    pipeline = MultiModelPipeline(parts)
    pipeline.image_behaviour.models_api = None
    description = pipeline.start()
    assert description["EndpointStatus"] == "Failed"
    assert "GET /models answered" in str(description["FailureReason"])
