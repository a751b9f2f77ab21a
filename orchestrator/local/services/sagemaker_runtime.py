"""SageMaker Runtime: InvokeEndpoint sends a request to an endpoint's container and returns its response.
InvokeEndpointAsync puts the request into the endpoint's queue.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any, Protocol

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.protocols.answer import Answer, Event, Service
from microjobs_orchestrator.local.resources.endpoints import asynchronous
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest, Target, Timer
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, EndpointStatus
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.inference_components.component import InferenceComponent
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.models import client
from microjobs_orchestrator.local.resources.models.client import PRIMARY, NoAnswerError, TooLargeError

RESPONSE_TIMEOUT = 60.0
STREAM_TIMEOUT = 8 * 60.0
"""Seconds for a whole response stream: https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints.html"""
MAX_RESPONSE_BYTES = 25 << 20
MAX_ERROR_CHARACTERS = 4096
"""Characters of a container's error that the client receives."""

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

Server = Endpoint | InferenceComponent
"""What chooses the replica for a request."""

Send = Callable[[Server, Replica, InferenceRequest, Timer], Answer]
"""Sends a request to a replica of an endpoint or of an inference component."""


class EndpointInvoker:
    """The operations. They may be called from any thread."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    def operations(self) -> Service:
        return {
            "InvokeEndpoint": self._invoke_endpoint,
            "InvokeEndpointWithResponseStream": self._open_stream,
            "InvokeEndpointAsync": self._enqueue,
        }

    def _enqueue(self, request: Mapping[str, Any]) -> Answer:
        name = request["EndpointName"]
        endpoint = self._find_endpoint(name)
        if (config := endpoint.async_config) is None:
            raise _make_validation_error(f"Endpoint {name} has no AsyncInferenceConfig: invoke it with InvokeEndpoint.")
        try:
            invocation = asynchronous.prepare(self._context, config, request, request["Body"])
        except ServiceError as error:
            raise _make_validation_error(error.message) from error
        endpoint.queue.put(invocation)
        members = {
            "InferenceId": invocation.inference_id,
            "OutputLocation": invocation.output,
            "FailureLocation": invocation.failure,
        }
        return Answer(members, HTTPStatus.ACCEPTED)

    def _invoke_endpoint(self, request: Mapping[str, Any]) -> Answer:
        return self._send(_read_request(request, RESPONSE_TIMEOUT), request["EndpointName"], self._invoke)

    def _open_stream(self, request: Mapping[str, Any]) -> Answer:
        return self._send(_read_request(request, STREAM_TIMEOUT), request["EndpointName"], self._stream)

    def _send(self, request: InferenceRequest, name: str, send: Send) -> Answer:
        """Send a request to a replica that the endpoint chooses. `send` performs the exchange."""
        timer = request.timer
        if self._find_endpoint(name).async_config is not None:
            message = f"Endpoint {name} has an AsyncInferenceConfig: invoke it with InvokeEndpointAsync."
            raise _make_validation_error(message)
        while True:
            server = self._find_server(name, request.target)
            if (replica := server.choose(request.target)) is None:
                raise _make_validation_error(server.describe_absence(request.target))
            timer.mark_sent()
            try:
                return send(server, replica, request, timer)
            except NoAnswerError as error:
                # An update may have ended the host before it responded: then the new host gets the request.
                if server.serves(replica):
                    server.observe(timer.make_exchange(name, replica, request, None))
                    raise self._describe_failure(server, replica.variant, error) from error

    def _find_server(self, name: str, target: Target) -> Server:
        """Return the endpoint, or the inference component that the request names."""
        endpoint = self._find_endpoint(name)
        if target.component is None:
            if endpoint.needs_components:
                raise _make_validation_error(
                    "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                    "components. Please include Inference Component Name header or consider using SageMaker models."
                )
            return endpoint
        component = self._registry.find(f"{INFERENCE_COMPONENT.arn_type}/{target.component}")
        if isinstance(component, InferenceComponent) and component.endpoint == name:
            return component
        raise _make_validation_error(
            f"Inference Component {target.component} of account {ACCOUNT} not found on endpoint {name}."
        )

    def _find_endpoint(self, name: str) -> Endpoint:
        endpoint = self._registry.find(f"{ENDPOINT.arn_type}/{name}")
        if isinstance(endpoint, Endpoint) and endpoint.is_in_service:
            return endpoint
        record = self._context.state.get(ENDPOINT.arn_type, name)
        if record is None:
            raise _make_validation_error(f"Endpoint {name} of account {ACCOUNT} not found.")
        if record.status in (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING):
            raise _make_unavailable_error(f"The server was started again, and endpoint {name} is not resumed yet.")
        raise _make_validation_error(f"Endpoint {name} of account {ACCOUNT} is {record.status}: it must be InService.")

    def _invoke(self, server: Server, replica: Replica, request: InferenceRequest, timer: Timer) -> Answer:
        content = BytesIO()
        try:
            response = replica.invoke(request, content)
        except TooLargeError as error:
            server.observe(timer.make_exchange(server.endpoint, replica, request, None))
            message = f"{error}, which is the limit for a response"
            raise self._make_model_error(server, 500, message) from error
        body = content.getvalue()
        server.observe(timer.make_exchange(server.endpoint, replica, request, response, body))
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            text = body.decode(errors="replace")
            raise self._make_model_error(server, response.status, text, response.container)
        members = {
            **_describe_response(replica, response.headers),
            "Body": body,
            **{member: response.headers.get(header) for member, header in SESSION_HEADERS.items()},
        }
        return Answer(members, response.status)

    def _stream(self, server: Server, replica: Replica, request: InferenceRequest, timer: Timer) -> Answer:
        stream = replica.stream(request)
        response = client.Answer(stream.status, stream.headers, stream.container)

        def observe(*, is_complete: bool) -> None:
            server.observe(timer.make_exchange(server.endpoint, replica, request, response if is_complete else None))

        if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
            with closing(stream):
                text = _read_error(stream)
            observe(is_complete=True)
            raise self._make_model_error(server, stream.status, text, stream.container)
        return Answer(_describe_response(replica, stream.headers), events=StreamEvents(stream, observe))

    def _describe_failure(self, server: Server, variant: str, error: NoAnswerError) -> ServiceError:
        if not error.was_sent:
            return _make_unavailable_error(
                f"The container of {variant} ended and is restarting; see {server.log_group}."
            )
        if error.timed_out:
            message = f"Your invocation timed out while waiting for a response from container {error.container}."
            message = f"{message} The time limit is {RESPONSE_TIMEOUT:g} s."
            return self._make_model_error(server, 0, message, error.container)
        message = f"SageMaker could not get a response from the {error.container} endpoint: {error}"
        return self._make_model_error(server, 500, message, error.container)

    def _make_model_error(self, server: Server, status: int, text: str, container: str = PRIMARY) -> ServiceError:
        group, region = server.log_group, self._context.settings.region
        source = "client" if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR else "server"
        original = text[:MAX_ERROR_CHARACTERS]
        message = (
            f'Received {source} error ({status}) from {container} with message "{original}". '
            f"See {group} in account {ACCOUNT} for more information."
        )
        arn = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}"
        members = {"Message": message, "OriginalStatusCode": status, "OriginalMessage": original, "LogStreamArn": arn}
        return ServiceError("ModelError", message, HTTPStatus.FAILED_DEPENDENCY, members)


class OnEnd(Protocol):
    """Receives whether the client received the complete response."""

    def __call__(self, *, is_complete: bool) -> None: ...


class StreamEvents:
    """The events of a response stream. `on_end` is called once, when the stream is closed."""

    def __init__(self, stream: ResponseStream, on_end: OnEnd) -> None:
        self._stream = stream
        self._on_end: OnEnd | None = on_end
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
        except NoAnswerError as error:
            code = "ModelInvocationTimeExceeded" if error.timed_out else "StreamBroken"
            message = f"{code}: the container's response is incomplete: {error}"
            raise ServiceError("ModelStreamError", message, members={"ErrorCode": code}) from error


def _read_request(members: Mapping[str, Any], timeout: float) -> InferenceRequest:
    headers = {header: members[member] for member, header in REQUEST_HEADERS.items() if member in members}
    return InferenceRequest(members["Body"], headers, timeout, MAX_RESPONSE_BYTES, Target.read(members))


def _describe_response(replica: Replica, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the members of a result that both operations have."""
    return {
        "ContentType": headers.get("Content-Type", "application/octet-stream"),
        "InvokedProductionVariant": replica.variant,
        "CustomAttributes": headers.get(CUSTOM_ATTRIBUTES),
    }


def _read_error(stream: ResponseStream) -> str:
    """Return the beginning of the body of an error."""
    content = b""
    with suppress(NoAnswerError):
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
