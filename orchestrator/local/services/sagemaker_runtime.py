"""SageMaker Runtime: InvokeEndpoint passes a request to an endpoint's container, and gives its answer back.
InvokeEndpointAsync puts it into the endpoint's queue.

Source: botocore's model of sagemaker-runtime; facts §2.4. As on AWS now, a body of InvokeEndpoint has 25 MB at most
(the model, from before, says 6; botocore does not look).
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from io import BytesIO
from math import inf

from botocore.model import Shape
from werkzeug import Request, Response

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.validation import validate
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry
from microjobs_orchestrator.local.parity import refuse
from microjobs_orchestrator.local.protocols.models import operation_model, service_model
from microjobs_orchestrator.local.resources.endpoints import asynchronous
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.replicas import INVOCATIONS, Replica
from microjobs_orchestrator.local.resources.models.client import NoAnswerError, TooLargeError

SERVICE = "sagemaker-runtime"
INVOKE, INVOKE_ASYNC = "InvokeEndpoint", "InvokeEndpointAsync"
OPERATIONS = {INVOCATIONS: INVOKE, "/async-invocations": INVOKE_ASYNC}
"""By what follows the endpoint in a path."""
CONTAINER = "primary"
"""What SageMaker calls a model's one container."""

ANSWER_SECONDS = 60.0
MOST_BYTES = 25 * 2**20
"""Of an answer."""
SHOWN = 4096
"""Characters of a container's error that the client gets."""

PASSED = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Target-Variant",
    "X-Amzn-SageMaker-Inference-Id",
    "X-Amzn-SageMaker-Session-Id",
    "X-Amzn-SageMaker-Prefix-Aware-Id",
)
"""Headers that the container gets as they are."""
RETURNED = (
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-New-Session-Id",
    "X-Amzn-SageMaker-Closed-Session-Id",
)
"""Headers of the container that the client gets, beside Content-Type."""


class Runtime:
    """The service; may be called from any thread."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    def __call__(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ServiceError: it is for another operation, is not valid, or its endpoint does not serve.
        """
        operation, name = _asked(request)
        members = _members(operation, name, request)
        if operation == INVOKE_ASYNC:
            return self._enqueue(name, members, request.get_data())
        return self._answer(name, members.get("TargetVariant"), request)

    def _enqueue(self, name: str, members: Mapping[str, str], body: bytes) -> Response:
        endpoint = self._endpoint(name)
        if (config := endpoint.asynchronous) is None:
            raise _invalid(f"Endpoint {name} has no AsyncInferenceConfig: invoke it with {INVOKE}.")
        try:
            invocation = asynchronous.prepare(self._context, config, members, body)
        except ServiceError as error:
            raise _invalid(error.message) from error
        endpoint.queue.put(invocation)
        headers = {"X-Amzn-SageMaker-OutputLocation": invocation.output}
        if invocation.failure is not None:
            headers["X-Amzn-SageMaker-FailureLocation"] = invocation.failure
        content = json.dumps({"InferenceId": invocation.inference_id})
        return Response(content, HTTPStatus.ACCEPTED, headers, content_type="application/json")

    def _answer(self, name: str, target: str | None, request: Request) -> Response:
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        body = request.get_data()
        if self._endpoint(name).asynchronous is not None:
            raise _invalid(f"Endpoint {name} has an AsyncInferenceConfig: invoke it with {INVOKE_ASYNC}.")
        while True:
            variant, replica = self._find(name, target)
            try:
                return self._invoke(name, variant, replica, body, headers)
            except NoAnswerError as error:
                # An update may have ended the container before it answered: then the new one gets the request.
                if self._serves(name, variant, replica):
                    return self._no_answer(name, variant, error)

    def _endpoint(self, name: str) -> Endpoint:
        """One that serves."""
        endpoint = self._registry.find(f"{ENDPOINT.arn_type}/{name}")
        if isinstance(endpoint, Endpoint) and endpoint.choose() is not None:
            return endpoint
        record = self._context.state.get(ENDPOINT.arn_type, name)
        if record is None:
            raise _invalid(f"Endpoint {name} of account {ACCOUNT} not found.")
        raise _invalid(f"Endpoint {name} of account {ACCOUNT} is {record.status}: it must be InService.")

    def _find(self, name: str, target: str | None) -> tuple[str, Replica]:
        if (chosen := self._endpoint(name).choose(target)) is None:
            raise _invalid(f"Endpoint {name} has no production variant {target}.")
        return chosen

    def _serves(self, name: str, variant: str, replica: Replica) -> bool:
        endpoint = self._registry.find(f"{ENDPOINT.arn_type}/{name}")
        return isinstance(endpoint, Endpoint) and endpoint.choose(variant) == (variant, replica)

    def _invoke(self, name: str, variant: str, replica: Replica, body: bytes, headers: Mapping[str, str]) -> Response:
        answered = BytesIO()
        try:
            answer = replica.invoke(body, headers, timeout=ANSWER_SECONDS, into=answered, most=MOST_BYTES)
        except TooLargeError as error:
            return self._model_error(name, 500, f"{error}, which is what an answer may have")
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            return self._model_error(name, answer.status, answered.getvalue().decode(errors="replace"))
        returned = {header: answer.headers[header] for header in RETURNED if header in answer.headers}
        returned["x-Amzn-Invoked-Production-Variant"] = variant
        content_type = answer.headers.get("Content-Type", "application/octet-stream")
        return Response(answered.getvalue(), answer.status, returned, content_type=content_type)

    def _no_answer(self, name: str, variant: str, error: NoAnswerError) -> Response:
        if not error.was_sent:
            raise _unavailable(name, variant) from error
        if error.timed_out:
            message = f"Your invocation timed out while waiting for a response from container {CONTAINER}."
            return self._model_error(name, 0, f"{message} It has {ANSWER_SECONDS:g} s.")
        return self._model_error(
            name, 500, f"SageMaker could not get a response from the {CONTAINER} endpoint: {error}"
        )

    def _model_error(self, name: str, status: int, said: str) -> Response:
        """The model's own error, as REST JSON: it has members beyond a message."""
        group, region = ENDPOINT.log_group(name), self._context.settings.region
        whose = "client" if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR else "server"
        content = {
            "Message": f'Received {whose} error ({status}) from {CONTAINER} with message "{said[:SHOWN]}". '
            f"See {group} in account {ACCOUNT} for more information.",
            "OriginalStatusCode": status,
            "OriginalMessage": said[:SHOWN],
            "LogStreamArn": f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}",
        }
        headers = {"x-amzn-ErrorType": "ModelError"}
        return Response(json.dumps(content), HTTPStatus.FAILED_DEPENDENCY, headers, content_type="application/json")


def _asked(request: Request) -> tuple[str, str]:
    """The operation, and the endpoint's name."""
    match = re.fullmatch(r"/endpoints/([^/]+)(/.*)", request.path)
    path = match[2] if match else request.path
    if match is None or request.method != "POST" or path not in OPERATIONS:
        service = service_model(SERVICE)
        uris = {service.operation_model(name).http["requestUri"]: name for name in service.operation_names}
        name = uris.get("/endpoints/{EndpointName}" + path, f"{request.method} {path}")
        known = " and ".join(OPERATIONS.values())
        raise ServiceError("UnknownOperationException", f"{name} is not here; there are {known}.", 404)
    return OPERATIONS[path], match[1]


def _members(operation: str, endpoint: str, request: Request) -> dict[str, str]:
    """The members of a valid request, all but its body."""
    model = operation_model(SERVICE, operation)
    members = {"EndpointName": endpoint}
    known = model.input_shape.members if model.input_shape else {}
    for name, shape in known.items():
        if shape.serialization.get("location") == "header":
            header = request.headers.get(shape.serialization["name"])
            members |= {} if header is None else {name: header}
    try:
        # A blob is not looked into: its length is enough.
        most = known["Body"].metadata["max"] if operation == INVOKE_ASYNC else inf
        validate(model, {name: _typed(known[name], value) for name, value in members.items()} | {"Body": ""})
    except ServiceError as error:
        raise _invalid(error.message) from error
    if len(request.get_data()) > most:
        raise _invalid(f"1 validation error detected: Member body must have length less than or equal to {most}")
    refuse(SERVICE, operation, members)
    return members


def _typed(shape: Shape, header: str) -> str | int:
    """A header's value; one that should be a number and is none stays as it is, and is not valid."""
    is_number = shape.type_name == "integer" and re.fullmatch(r"-?[0-9]{1,18}", header)
    return int(header) if is_number else header


def _invalid(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


def _unavailable(name: str, variant: str) -> ServiceError:
    """SDKs ask again after this one."""
    message = f"The container of {variant} ended and is being started again; see {ENDPOINT.log_group(name)}."
    return ServiceError("ServiceUnavailable", message, HTTPStatus.SERVICE_UNAVAILABLE)
