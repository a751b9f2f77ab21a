"""Queue of an endpoint's asynchronous invocations. The server's database stores the queue; results are S3 objects.

An invocation is deleted when its result, or the reason for its failure, is stored. If the server ends earlier, the next
server runs the invocation again. Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
"""

import base64
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, TypeVar

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints import full_disk, notifications
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest, Observer, Timer
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.notifications import InvocationResult
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.models.client import PRIMARY, Body, NoResponseError
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES, DEFAULT_CONTENT_TYPE, guess_details
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Owner, Query, Record

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

INVOCATION_KIND = "async-invocation"
QUEUE_MOMENT = "QueueMoment"
"""Key in the internal state: the time at which the invocation entered the queue, as a stored `Moment`."""

DEFAULT_CONCURRENCY = 4
"""Parallel invocations for each replica if the configuration has no limit; AWS chooses a number in this case."""
RETRY_DELAY = 0.5
"""Seconds before an invocation is sent again to a container that did not receive it."""
MAX_ERROR_BYTES = 500
"""Maximum number of bytes of a model's error response that the log quotes."""
CUSTOM_ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
REQUEST_HEADERS = {"ContentType": "Content-Type", "Accept": "Accept", "CustomAttributes": CUSTOM_ATTRIBUTES_HEADER}
"""Headers that the container receives, by the members of the client's request."""


@dataclass(frozen=True)
class Invocation:
    """An invocation, as the server's database stores it."""

    name: str
    inference_id: str
    headers: Mapping[str, str]
    input: str
    """The S3 URI of the input; empty if `body` is the input."""
    body: str
    """The body of the request in base64."""
    output: str
    failure: str | None
    """`output` and `failure` are the S3 URIs of the result and the error; `failure` is None without S3FailurePath."""
    timeout: int
    """Seconds that the container may take to respond."""
    lifetime: int
    """Seconds that the invocation may wait in the queue."""
    notifications: Mapping[str, Any] = field(default_factory=dict)
    """The NotificationConfig of the endpoint."""


def check_config(context: Context, config: Mapping[str, Any]) -> None:
    """Raise ValidationError if objects cannot be written below the paths of an AsyncInferenceConfig, or if its
    NotificationConfig lacks a topic."""
    for name in ("S3OutputPath", "S3FailurePath"):
        _make_uri(context, config, name, file="x")  # the name of the file does not matter
    notifications.check_config(config["OutputConfig"].get("NotificationConfig", {}))


def make_invocation(context: Context, config: Mapping[str, Any], members: Mapping[str, Any], body: bytes) -> Invocation:
    """Return the invocation of a validated request, and do not enqueue it. Raise ValidationError for a wrong body,
    input or output.

    Args:
        config: the AsyncInferenceConfig of the endpoint.
        members: the members of the request.
    """
    if bool(body) == ("InputLocation" in members):
        raise ValidationError(f"Provide exactly one of Body and InputLocation, not {'both' if body else 'neither'}.")
    if not body:
        parse_uri(members["InputLocation"])
    name, extension = uuid.uuid4().hex, members.get("S3OutputPathExtension", "")
    output = outputs.join_key(extension, members.get("Filename", f"{name}.out"))
    failure = outputs.join_key(extension, f"{members.get('Filename', name)}-error.out")
    inference_id = members.get("InferenceId", name)
    headers = {header: members[member] for member, header in REQUEST_HEADERS.items() if member in members}
    return Invocation(
        name,
        inference_id,
        headers={**headers, "X-Amzn-SageMaker-Inference-Id": inference_id},
        input=members.get("InputLocation", ""),
        body=base64.b64encode(body).decode(),
        output=_make_uri(context, config, "S3OutputPath", output) or "",
        failure=_make_uri(context, config, "S3FailurePath", failure),
        timeout=int(members.get("InvocationTimeoutSeconds", 900)),
        lifetime=int(members.get("RequestTTLSeconds", 21_600)),
        notifications=config["OutputConfig"].get("NotificationConfig", {}),
    )


def _make_uri(context: Context, config: Mapping[str, Any], member: str, file: str) -> str | None:
    if (path := config["OutputConfig"].get(member)) is None:
        return None
    try:
        bucket, prefix = parse_uri(path)
        key = outputs.join_key(prefix, file)
        context.store.check_writable(bucket, key)
    except ServiceError as error:
        raise ValidationError(f"{member} {path}: {error.message}") from error
    return f"s3://{bucket}/{key}"


def list_queue(context: Context, endpoint: str) -> list[Record]:
    """Return an endpoint's invocations, oldest first."""
    owner = Owner(ENDPOINT.arn_type, endpoint)
    return context.state.find(Query(INVOCATION_KIND, owner=owner, descending=False, limit=-1))


class InvocationError(Exception):
    """The invocation failed. If `content_type` is set, the file for the response contains the model's error."""

    def __init__(self, message: str, content_type: str | None = None) -> None:
        super().__init__(message)
        self.content_type = content_type


class _ClosedError(Exception):
    """The server or the endpoint is ending."""


class InvocationQueue:
    """Runs the asynchronous invocations of one endpoint. Any thread may call the methods.

    Args:
        choose_replica: returns the replica for the next invocation; None if no replica serves.
        observe: receives each exchange with a replica.
    """

    def __init__(
        self, context: Context, endpoint: str, choose_replica: Callable[[], Replica | None], observe: Observer
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._choose_replica = choose_replica
        self._observe = observe
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._change_condition = threading.Condition(self._lock)
        self._wake_count = 0
        self._running_names: set[str] = set()
        self._pools: list[ThreadPoolExecutor] = []
        """The last pool takes new invocations; earlier pools only finish their running invocations."""
        self._concurrency = 0

    def set_concurrency(self, concurrency: int) -> None:
        """Set the number of invocations that run in parallel. If the number changes, a new pool of threads takes over
        the waiting invocations."""
        with self._lock:
            if concurrency == self._concurrency:
                return
            for earlier_pool in self._pools:
                earlier_pool.shutdown(wait=False, cancel_futures=True)
            self._pools.append(pool := ThreadPoolExecutor(concurrency, thread_name_prefix=f"async {self._endpoint}"))
            self._concurrency = concurrency
            for record in list_queue(self._context, self._endpoint):
                pool.submit(self._run, record.name)

    def put(self, invocation: Invocation) -> None:
        """Store and enqueue an invocation. Raise ServiceError if the endpoint or the server is ending."""
        owner, internal = Owner(ENDPOINT.arn_type, self._endpoint), {QUEUE_MOMENT: Moment.now().to_members()}
        with self._lock:
            if self._closing.is_set():
                raise ServiceError("ServiceUnavailable", f"Endpoint {self._endpoint} is ending.", 503)
            self._context.state.add(
                INVOCATION_KIND,
                invocation.name,
                arn="",
                status="Waiting",
                request=asdict(invocation),
                description={},
                internal=internal,
                owner=owner,
            )
            if self._pools:
                self._pools[-1].submit(self._run, invocation.name)

    def wake(self) -> None:
        """Let waiting invocations choose a replica again."""
        with self._change_condition:
            self._wake_count += 1
            self._change_condition.notify_all()

    def _wait_for_change(self, wake_count: int, timeout: float) -> None:
        with self._change_condition:
            self._change_condition.wait_for(lambda: self._wake_count != wake_count or self._closing.is_set(), timeout)

    def stop(self) -> None:
        """Start no more invocations. Running invocations end with their hosts."""
        self._closing.set()
        self.wake()

    def close(self) -> None:
        """Stop, and wait for running invocations."""
        self.stop()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, name: str) -> None:
        """Run a stored invocation, unless it is running or has ended."""
        with self._lock:  # `set_concurrency` also submits invocations that still run in an earlier pool
            if name in self._running_names:
                return
            self._running_names.add(name)
        try:
            record = self._context.state.get(INVOCATION_KIND, name)
            if record is not None:
                queue_time = Moment.read(record.internal.get(QUEUE_MOMENT), record.created)
                invocation = Invocation(**record.request)
                result = self._retry(invocation, partial(self._invoke_and_store, invocation, queue_time))
                self._retry(invocation, partial(self._finish, invocation, record.created, result))
        except _ClosedError:
            pass
        except Exception:
            logger.exception("asynchronous invocation %s of %s failed", name, self._endpoint)
        finally:
            with self._lock:
                self._running_names.discard(name)

    def _retry(self, invocation: Invocation, action: Callable[[], Value]) -> Value:
        """Perform an action of an invocation. While the disk is full, wait, and repeat the action."""

        def note(predicate: str) -> None:
            self._note(f"asynchronous invocation {invocation.inference_id} {predicate}")

        return full_disk.retry(action, self._closing, note)

    def _note(self, sentence: str) -> None:
        if (replica := self._choose_replica()) is not None:
            replica.note(sentence)
        else:
            logger.warning("%s: %s", self._endpoint, sentence)

    def _finish(self, invocation: Invocation, receive_time: float, result: InvocationResult) -> None:
        with self._context.state.transaction():
            self._publish(invocation, receive_time, result)
            self._context.state.delete(INVOCATION_KIND, invocation.name)

    def _publish(self, invocation: Invocation, receive_time: float, result: InvocationResult) -> None:
        """Publish the notification about the end of an invocation, if its endpoint has a topic for it."""
        if (topic := invocation.notifications.get(result.topic_member)) is None:
            return
        request = {"inferenceId": invocation.inference_id, "contentType": invocation.headers.get("Content-Type", "")}
        if invocation.input:
            request["inputLocation"] = invocation.input
        region, output = self._context.settings.region, invocation.output
        message = notifications.make_message(region, self._endpoint, request, output, receive_time, result)
        self._context.state.publish(topic, message)

    def _invoke_and_store(self, invocation: Invocation, queue_time: Moment) -> InvocationResult:
        """Send an invocation to the model, and store the response, or the reason for the failure, as an object."""
        config = invocation.notifications
        with self._context.store.new_file() as file:
            try:
                content_type = self._invoke(invocation, queue_time, file)
                body = notifications.read_body(config, file, is_success=True)
                # The model is not invoked again if only the object cannot be stored.
                self._retry(invocation, partial(self._store, invocation.output, file, content_type))
                return InvocationResult(content_type, body)
            except InvocationError as error:
                reason, error_content_type = str(error), error.content_type
            except ServiceError as error:
                reason, error_content_type = error.message, None
            body = None if error_content_type is None else notifications.read_body(config, file, is_success=False)
            self._fail(invocation, reason, error_content_type, file)
            return InvocationResult(error_content_type, body, reason)

    def _fail(self, invocation: Invocation, reason: str, content_type: str | None, file: Path) -> None:
        self._note(f"asynchronous invocation {invocation.inference_id} failed: {reason}")
        if invocation.failure is None:
            return
        if content_type is None:
            file.write_text(reason)
        try:
            self._retry(invocation, partial(self._store, invocation.failure, file, content_type or "text/plain"))
        except ServiceError as error:  # the bucket existed when the request arrived, but may be deleted now
            logger.warning("%s cannot be stored: %s", invocation.failure, error)

    def _store(self, uri: str, file: Path, content_type: str) -> None:
        bucket, key = parse_uri(uri)
        with file.open("rb") as content:
            details = guess_details(key, content)
        self._context.store.put(bucket, key, file, replace(details, headers={"ContentType": content_type}))

    # --- requests to the model ---

    def _invoke(self, invocation: Invocation, queue_time: Moment, file: Path) -> str:
        """Write the model's response or error to a file. Return the response's content type.

        Raise InvocationError for an error.
        """
        while not self._closing.is_set():
            wake_count = self._wake_count
            if (seconds_left := invocation.lifetime - queue_time.elapsed()) < 0:
                raise InvocationError(f"the request waited longer than {invocation.lifetime} s (RequestTTLSeconds)")
            if (replica := self._choose_replica()) is not None:
                seconds_left = min(seconds_left, RETRY_DELAY)
                try:
                    return self._send(invocation, replica, file)
                except NoResponseError as error:
                    # If an update or the end of the server has ended the host, the host's replacement gets the request.
                    if error.was_sent and not replica.traffic.is_closed and not self._closing.is_set():
                        time_limit = (
                            f" within {invocation.timeout} s (InvocationTimeoutSeconds)" if error.timed_out else ""
                        )
                        raise InvocationError(f"the container did not answer{time_limit}: {error}") from error
            self._wait_for_change(wake_count, seconds_left)
        raise _ClosedError

    def _send(self, invocation: Invocation, replica: Replica, file: Path) -> str:
        """Send an invocation to a replica, and write the response to a file. Return the content type.

        Raise InvocationError if the model responds with an error, and NoResponseError if it does not respond.
        """
        timer = Timer()
        with self._open_input(invocation) as (body, object_headers), file.open("w+b") as content:
            request = InferenceRequest(body, {**object_headers, **invocation.headers}, invocation.timeout)
            timer.mark_sent()
            response = replica.invoke(request, content)
            read_response = partial(_read_blocks, content)
            self._observe(timer.make_exchange(self._endpoint, replica, request, response, read_response))
        content_type = response.headers.get("Content-Type", DEFAULT_CONTENT_TYPE)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            with file.open("rb") as content:
                text = content.read(MAX_ERROR_BYTES).decode(errors="replace")
            name = "the model" if response.container == PRIMARY else response.container
            raise InvocationError(f'{name} answered {response.status}: "{text}"', content_type)
        return content_type

    @contextmanager
    def _open_input(self, invocation: Invocation) -> Iterator[tuple[Body, Mapping[str, str]]]:
        if not invocation.input:
            yield base64.b64decode(invocation.body), {}
            return
        opened_object = self._context.store.open(*parse_uri(invocation.input))
        with closing(opened_object.file) as file:
            content_type = opened_object.details.headers.get("ContentType", DEFAULT_CONTENT_TYPE)
            size = str(opened_object.stored_object.size)  # a container's server may not support chunked encoding
            yield partial(_read_blocks, file), {"Content-Type": content_type, "Content-Length": size}


def _read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(partial(file.read, BLOCK_BYTES), b"")
