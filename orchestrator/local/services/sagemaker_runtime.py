"""SageMaker Runtime: InvokeEndpoint sends a request to an endpoint's container and returns its response.
InvokeEndpointWithResponseStream returns the response in parts. InvokeEndpointAsync puts the request into the endpoint's
queue.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any, Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.protocols.results import Event, OperationResult, Service
from microjobs_orchestrator.local.resources.endpoints import asynchronous
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest, InvocationTarget, Timer
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, SERVING_STATUSES
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.inference_components.component import InferenceComponent
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.models import client
from microjobs_orchestrator.local.resources.models.client import PRIMARY, NoResponseError, TooLargeError
from microjobs_orchestrator.local.tasks import call_in_thread

RESPONSE_TIMEOUT = 60.0
"""Seconds for the response to InvokeEndpoint."""
RESUME_TIMEOUT = 10.0
"""Maximum number of seconds that a request waits for a restarted server to resume the endpoint."""
STREAM_TIMEOUT = 8 * 60.0
"""Seconds for a whole response stream: https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints.html"""
MAX_RESPONSE_BYTES = 25 << 20
MAX_ERROR_CHARACTERS = 4096
"""Maximum number of characters of a container's error that the client receives."""

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

REQUEST_HEADERS = {
    "ContentType": "Content-Type",
    "Accept": "Accept",
    "CustomAttributes": CUSTOM_ATTRIBUTES,
    "TargetVariant": "X-Amzn-SageMaker-Target-Variant",
    "InferenceId": "X-Amzn-SageMaker-Inference-Id",
    "SessionId": "X-Amzn-SageMaker-Session-Id",
    "PrefixAwareId": "X-Amzn-SageMaker-Prefix-Aware-Id",
}
"""Headers of the request that the container receives, by the members of the client's request."""

SESSION_HEADERS = {
    "NewSessionId": "X-Amzn-SageMaker-New-Session-Id",
    "ClosedSessionId": "X-Amzn-SageMaker-Closed-Session-Id",
}
"""Headers of the container's response that the client receives from InvokeEndpoint, by the members of the result."""

InvokedResource = Endpoint | InferenceComponent
"""The resource that chooses the replica for a request."""

Send = Callable[[InvokedResource, Replica, InferenceRequest, Timer], OperationResult]
"""Sends a request to a replica of an endpoint or of an inference component."""


class EndpointInvoker:
    """SageMaker Runtime's operations. They may be called from any thread."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    def list_handlers(self) -> Service:
        return {
            "InvokeEndpoint": self._invoke_endpoint,
            "InvokeEndpointWithResponseStream": self._open_stream,
            "InvokeEndpointAsync": self._enqueue,
        }

    def _enqueue(self, request: Mapping[str, Any]) -> OperationResult:
        name = request["EndpointName"]
        endpoint = self._find_endpoint(name)
        if (config := endpoint.async_config) is None:
            raise _make_validation_error(f"Endpoint {name} has no AsyncInferenceConfig: invoke it with InvokeEndpoint.")
        try:
            invocation = asynchronous.make_invocation(self._context, config, request, request["Body"])
        except ServiceError as error:
            raise _make_validation_error(error.message) from error
        endpoint.queue.put(invocation)
        members = {
            "InferenceId": invocation.inference_id,
            "OutputLocation": invocation.output,
            "FailureLocation": invocation.failure,
        }
        return OperationResult(members, HTTPStatus.ACCEPTED)

    def _invoke_endpoint(self, request: Mapping[str, Any]) -> OperationResult:
        return self._send(_read_request(request, RESPONSE_TIMEOUT), request["EndpointName"], self._invoke)

    def _open_stream(self, request: Mapping[str, Any]) -> OperationResult:
        return self._send(_read_request(request, STREAM_TIMEOUT), request["EndpointName"], self._stream)

    def _send(self, request: InferenceRequest, name: str, send: Send) -> OperationResult:
        """Send a request to a replica that the endpoint or the component chooses. `send` performs the exchange.

        Args:
            name: the name of the endpoint.
        """
        timer, tried_replicas = request.timer, list[Replica]()
        while True:
            resource = self._find_resource(name, request.target)
            if (replica := resource.choose_replica(request.target, tried_replicas)) is None:
                raise _make_validation_error(resource.explain_missing_replica(request.target))
            timer.mark_sent()
            try:
                return send(resource, replica, request, timer)
            except NoResponseError as error:
                # If an update ended the host before it responded, the loop sends the request to the new host. If the
                # request did not reach the host, the loop sends the request to another instance.
                tried_replicas.append(replica)
                if resource.routes_to(replica) and (error.was_sent or not resource.has_other_replica(tried_replicas)):
                    resource.observe(timer.make_exchange(name, replica, request, response=None))
                    raise self._make_failure_error(resource, replica.variant, error, request.timeout) from error

    def _find_resource(self, name: str, target: InvocationTarget) -> InvokedResource:
        """Return the endpoint, or the inference component that the request names."""
        endpoint = self._find_endpoint(name)
        if endpoint.async_config is not None:
            message = f"Endpoint {name} has an AsyncInferenceConfig: invoke it with InvokeEndpointAsync."
            raise _make_validation_error(message)
        if target.component is None:
            if endpoint.needs_components:
                raise _make_validation_error(
                    "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                    "components. Please include Inference Component Name header or consider using SageMaker models."
                )
            return endpoint
        component = self._registry.find(f"{INFERENCE_COMPONENT.arn_type}/{target.component}")
        if isinstance(component, InferenceComponent) and component.endpoint == name:
            if not component.is_in_service.is_set() and component.has_serving_status():
                self._wait_until_resumed(component)
            return component
        raise _make_validation_error(
            f"Inference Component {target.component} of account {ACCOUNT} not found on endpoint {name}."
        )

    def _find_endpoint(self, name: str) -> Endpoint:
        endpoint = self._registry.find(f"{ENDPOINT.arn_type}/{name}")
        if isinstance(endpoint, Endpoint) and endpoint.is_in_service.is_set():
            return endpoint
        record = self._context.state.get(ENDPOINT.arn_type, name)
        if record is None:
            raise _make_validation_error(f"Endpoint {name} of account {ACCOUNT} not found.")
        if record.status not in SERVING_STATUSES:
            message = f"Endpoint {name} of account {ACCOUNT} is {record.status}: it must be InService."
            raise _make_validation_error(message)
        if not isinstance(endpoint, Endpoint):
            raise _make_unavailable_error(f"The server is ending, and endpoint {name} has ended.")
        self._wait_until_resumed(endpoint)
        return endpoint

    def _wait_until_resumed(self, resource: InvokedResource) -> None:
        """Wait until a resource is in service again. It was in service when an earlier server ended."""
        call_in_thread(partial(resource.wait_for_start, RESUME_TIMEOUT))
        if not resource.is_in_service.is_set():
            raise _make_unavailable_error(f"The server was started again, and {resource.name} is not resumed yet.")

    def _invoke(
        self, resource: InvokedResource, replica: Replica, request: InferenceRequest, timer: Timer
    ) -> OperationResult:
        content = BytesIO()
        try:
            response = replica.invoke(request, content)
        except TooLargeError as error:
            resource.observe(timer.make_exchange(resource.endpoint, replica, request, response=None))
            message = f"{error}, which is the limit for a response"
            raise self._make_model_error(resource, 500, message) from error
        body = content.getvalue()
        resource.observe(timer.make_exchange(resource.endpoint, replica, request, response, body))
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            text = body.decode(errors="replace")
            raise self._make_model_error(resource, response.status, text, response.container)
        members = {
            **_describe_response(replica, response.headers),
            "Body": body,
            **{member: response.headers.get(header) for member, header in SESSION_HEADERS.items()},
        }
        return OperationResult(members, response.status)

    def _stream(
        self, resource: InvokedResource, replica: Replica, request: InferenceRequest, timer: Timer
    ) -> OperationResult:
        stream = replica.stream(request)
        response = client.ResponseHead(stream.status, stream.headers, stream.container)

        def observe(*, is_complete: bool) -> None:
            resource.observe(
                timer.make_exchange(resource.endpoint, replica, request, response if is_complete else None)
            )

        if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
            with closing(stream):
                text = _read_error(stream)
            observe(is_complete=True)
            raise self._make_model_error(resource, stream.status, text, stream.container)
        return OperationResult(_describe_response(replica, stream.headers), events=StreamEvents(stream, observe))

    def _make_failure_error(
        self, resource: InvokedResource, variant: str, error: NoResponseError, timeout: float
    ) -> ServiceError:
        if not error.was_sent:
            return _make_unavailable_error(
                f"The container of {variant} ended and is restarting; see {resource.log_group}."
            )
        if error.timed_out:
            message = f"Your invocation timed out while waiting for a response from container {error.container}."
            message = f"{message} The time limit is {timeout:g} s."
            return self._make_model_error(resource, status=0, text=message, container=error.container)
        message = f"SageMaker could not get a response from the {error.container} endpoint: {error}"
        return self._make_model_error(resource, 500, message, error.container)

    def _make_model_error(
        self, resource: InvokedResource, status: int, text: str, container: str = PRIMARY
    ) -> ServiceError:
        group, region = resource.log_group, self._context.settings.region
        source = "client" if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR else "server"
        original = text[:MAX_ERROR_CHARACTERS]
        message = (
            f'Received {source} error ({status}) from {container} with message "{original}". '
            f"See {group} in account {ACCOUNT} for more information."
        )
        arn = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}"
        members = {"Message": message, "OriginalStatusCode": status, "OriginalMessage": original, "LogStreamArn": arn}
        return ServiceError("ModelError", message, HTTPStatus.FAILED_DEPENDENCY, members)


class EndObserver(Protocol):
    """A function that is called at the end of a response. `is_complete` states whether the client has received all
    parts of the response."""

    def __call__(self, *, is_complete: bool) -> None: ...


class StreamEvents:
    """The events of a response stream. The first call of `close` calls `on_end`."""

    def __init__(self, stream: ResponseStream, on_end: EndObserver) -> None:
        self._stream = stream
        self._on_end: EndObserver | None = on_end
        self._is_complete = False

    def close(self) -> None:
        self._stream.close()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(is_complete=self._is_complete)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events. Raise ServiceError if the response ends too early, or takes too long."""
        try:
            for part in self._stream:
                yield None if part is None else ("PayloadPart", {"Bytes": part})
            self._is_complete = True
        except NoResponseError as error:
            code = "ModelInvocationTimeExceeded" if error.timed_out else "StreamBroken"
            message = f"{code}: the container's response is incomplete: {error}"
            raise ServiceError("ModelStreamError", message, members={"ErrorCode": code}) from error


def _read_request(members: Mapping[str, Any], timeout: float) -> InferenceRequest:
    headers = {header: members[member] for member, header in REQUEST_HEADERS.items() if member in members}
    return InferenceRequest(members["Body"], headers, timeout, MAX_RESPONSE_BYTES, InvocationTarget.read(members))


def _describe_response(replica: Replica, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the members that the results of InvokeEndpoint and InvokeEndpointWithResponseStream have in common."""
    return {
        "ContentType": headers.get("Content-Type", "application/octet-stream"),
        "InvokedProductionVariant": replica.variant,
        "CustomAttributes": headers.get(CUSTOM_ATTRIBUTES),
    }


def _read_error(stream: ResponseStream) -> str:
    """Return the beginning of the body of an error."""
    content = b""
    with suppress(NoResponseError):
        for part in stream:
            content += part or b""
            if len(content) > MAX_ERROR_CHARACTERS:
                break
    return content.decode(errors="replace")


def _make_validation_error(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


def _make_unavailable_error(message: str) -> ServiceError:
    """Return an error after which SDKs send the request again."""
    return ServiceError("ServiceUnavailable", message, HTTPStatus.SERVICE_UNAVAILABLE)
