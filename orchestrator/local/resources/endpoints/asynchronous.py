"""Asynchronous invocations: an endpoint's queue, which the state stores. The answers become objects.

An invocation is deleted when its answer, or the reason of its failure, is stored. If the server ends before that, the
next server runs the invocation again. Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
"""

import base64
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from microjobs_orchestrator.local.clock import Moment
from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.lifecycle import outputs
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT
from microjobs_orchestrator.local.resources.endpoints.replicas import Replica
from microjobs_orchestrator.local.resources.models.client import Body, NoAnswerError
from microjobs_orchestrator.local.s3.details import BLOCK_BYTES, DEFAULT_CONTENT_TYPE, guess_details
from microjobs_orchestrator.local.s3.keys import parse_uri
from microjobs_orchestrator.local.state import Owner, Query, Record

logger = logging.getLogger(__name__)

KIND = "async-invocation"
QUEUED = "QueueMoment"
"""A key of the internal state, with a value as `Moment` stores it."""

DEFAULT_CONCURRENCY = 4
"""Parallel invocations of a replica if the configuration has no limit; AWS chooses a number then."""
RETRY_DELAY = 0.5
"""Seconds before an invocation is sent again to a container that did not take it."""
MAX_ERROR_LENGTH = 500
"""Characters of a model's error in the log."""
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
PASSED = {"ContentType": "Content-Type", "Accept": "Accept", "CustomAttributes": ATTRIBUTES}
"""The headers of the container's request, by the members of the client's."""

Choose = Callable[[], tuple[str, Replica] | None]
"""Returns the variant that answers the next request and its replica, or None."""


@dataclass(frozen=True)
class Invocation:
    """An invocation, as the state stores it."""

    name: str
    inference_id: str
    headers: Mapping[str, str]
    """The headers of the container's request."""
    input: str
    """An S3 URI; empty if `body` is the input."""
    body: str
    """In base64."""
    output: str
    failure: str | None
    """S3 URIs of the result, or of the error."""
    timeout: int
    """Seconds that the container may take."""
    lifetime: int
    """Seconds in the queue."""


def check_buckets(context: Context, config: Mapping[str, Any]) -> None:
    """Raise ValidationError unless the buckets of an AsyncInferenceConfig exist."""
    where = config["OutputConfig"]
    for name in ("S3OutputPath", "S3FailurePath"):
        if name in where:
            _location(context, name, where[name], "x")


def prepare(context: Context, config: Mapping[str, Any], members: Mapping[str, Any], body: bytes) -> Invocation:
    """Return the invocation of a validated InvokeEndpointAsync request.

    Args:
        config: the endpoint's AsyncInferenceConfig.

    Raises:
        ValidationError: it has both or neither of Body and InputLocation, or its output cannot be stored.
    """
    if bool(body) == ("InputLocation" in members):
        raise ValidationError(f"Provide exactly one of Body and InputLocation, not {'both' if body else 'neither'}.")
    if not body:
        parse_uri(members["InputLocation"])
    where, name = config["OutputConfig"], uuid.uuid4().hex
    file = members.get("Filename", name)
    names = [members.get("Filename", f"{name}.out"), f"{file}-error.out"]
    output, failure = (outputs.join(members.get("S3OutputPathExtension", ""), name) for name in names)
    inference_id = members.get("InferenceId", name)
    headers = {header: members[member] for member, header in PASSED.items() if member in members}
    return Invocation(
        name,
        inference_id,
        {**headers, "X-Amzn-SageMaker-Inference-Id": inference_id},
        members.get("InputLocation", ""),
        base64.b64encode(body).decode(),
        _location(context, "S3OutputPath", where["S3OutputPath"], output),
        _location(context, "S3FailurePath", where["S3FailurePath"], failure) if "S3FailurePath" in where else None,
        int(members.get("InvocationTimeoutSeconds", 900)),
        int(members.get("RequestTTLSeconds", 21_600)),
    )


def _location(context: Context, member: str, path: str, file: str) -> str:
    try:
        bucket, prefix = parse_uri(path)
        key = outputs.join(prefix, file)
        context.store.check(bucket, key)
    except ServiceError as error:
        raise ValidationError(f"{member} {path}: {error.message}") from error
    return f"s3://{bucket}/{key}"


def discard(context: Context, endpoint: str) -> None:
    """Delete an endpoint's queue."""
    for record in _waiting(context, endpoint):
        context.state.delete(KIND, record.name)


def _waiting(context: Context, endpoint: str) -> list[Record]:
    """Return an endpoint's invocations, oldest first."""
    return context.state.find(Query(KIND, owner=_owner(endpoint), descending=False, limit=-1))


def _owner(endpoint: str) -> Owner:
    return Owner(ENDPOINT.arn_type, endpoint)


class FailedError(Exception):
    """The invocation failed. With a content type, the output file contains the model's own error."""

    def __init__(self, message: str, content_type: str | None = None) -> None:
        super().__init__(message)
        self.content_type = content_type


class _ClosedError(Exception):
    """The server or the endpoint is ending."""


class Queue:
    """An endpoint's invocations, several of which run in parallel. Methods may be called from any thread."""

    def __init__(self, context: Context, endpoint: str, choose: Choose) -> None:
        self._context = context
        self._endpoint = endpoint
        self._choose = choose
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._changes = 0
        self._under_way: set[str] = set()
        self._pools: list[ThreadPoolExecutor] = []
        """The last one takes new invocations; the earlier ones only finish theirs."""
        self._most = 0

    def open(self, most: int) -> None:
        """Start the waiting invocations, and set how many run in parallel."""
        with self._lock:
            if most == self._most:
                return
            for earlier in self._pools:
                earlier.shutdown(wait=False, cancel_futures=True)
            self._pools.append(pool := ThreadPoolExecutor(most, thread_name_prefix=f"async {self._endpoint}"))
            self._most = most
            for record in _waiting(self._context, self._endpoint):
                pool.submit(self._make, record.name)

    def put(self, invocation: Invocation) -> None:
        """Store and enqueue an invocation.

        Raises:
            ServiceError: the endpoint or the server is ending.
        """
        state, name = self._context.state, invocation.name
        with self._lock:
            if self._closing.is_set():
                raise ServiceError("ServiceUnavailable", f"Endpoint {self._endpoint} is ending.", 503)
            state.add(
                KIND,
                name,
                "",
                "Waiting",
                asdict(invocation),
                {},
                internal={QUEUED: Moment.now().stored()},
                owner=_owner(self._endpoint),
            )
            if self._pools:
                self._pools[-1].submit(self._make, name)

    def stop(self) -> None:
        """Start no more invocations. Running ones end with their containers."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting invocations choose a container again."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _wait_for_change(self, changes: int, timeout: float) -> None:
        """Wait until the number of changes is another one, the queue is closed, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != changes or self._closing.is_set(), timeout)

    def close(self) -> None:
        """Stop, and wait for running invocations."""
        self.stop()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, name: str) -> None:
        with self._lock:  # after `open` with another number, one may have been submitted twice
            if name in self._under_way:
                return
            self._under_way.add(name)
        try:
            record = self._context.state.get(KIND, name)
            if record is not None:
                queued = Moment.read(record.internal.get(QUEUED), record.created)
                self._answer(Invocation(**record.request), queued)
                self._context.state.delete(KIND, name)
        except _ClosedError:
            pass
        except Exception:
            logger.exception("asynchronous invocation %s of %s failed", name, self._endpoint)
        finally:
            with self._lock:
                self._under_way.discard(name)

    def _answer(self, invocation: Invocation, queued: Moment) -> None:
        """Store the answer, or the reason of the failure."""
        with self._context.store.incoming() as file:
            try:
                content_type = self._ask(invocation, queued, file)
                self._store(invocation.output, file, content_type)
            except FailedError as error:
                self._fail(invocation, error, file)
            except ServiceError as error:
                self._fail(invocation, FailedError(error.message), file)

    def _fail(self, invocation: Invocation, error: FailedError, file: Path) -> None:
        """Store the model's own error, or the reason, and log the reason."""
        said = f"asynchronous invocation {invocation.inference_id} failed: {error}"
        if (chosen := self._choose()) is not None:
            chosen[1].note(said)
        else:
            logger.warning("%s: %s", self._endpoint, said)
        if invocation.failure is None:
            return
        if error.content_type is None:
            file.write_text(str(error))
        try:
            self._store(invocation.failure, file, error.content_type or "text/plain")
        except ServiceError as missing:  # its bucket was there when the request came
            logger.warning("%s cannot be stored: %s", invocation.failure, missing)

    def _store(self, uri: str, file: Path, content_type: str) -> None:
        bucket, key = parse_uri(uri)
        with file.open("rb") as content:
            details = guess_details(key, content)
        self._context.store.adopt(bucket, key, file, replace(details, headers={"ContentType": content_type}))

    # --- asking ---

    def _ask(self, invocation: Invocation, queued: Moment, file: Path) -> str:
        """Write the model's answer, or its error, to a file; return the answer's content type.

        Raises:
            FailedError: the model did not answer, or answered with an error.
            ServiceError: the input does not exist.
        """
        while not self._closing.is_set():
            changes = self._changes
            if (left := invocation.lifetime - queued.elapsed()) < 0:
                raise FailedError(f"the request waited longer than {invocation.lifetime} s (RequestTTLSeconds)")
            if (chosen := self._choose()) is not None:
                try:
                    return self._ask_once(invocation, chosen[1], file)
                except NoAnswerError as error:
                    self._check_retry(invocation, chosen[1], error)
            self._wait_for_change(changes, left if chosen is None else min(left, RETRY_DELAY))
        raise _ClosedError

    def _check_retry(self, invocation: Invocation, replica: Replica, error: NoAnswerError) -> None:
        """Raise FailedError unless another container can answer: an update, or the server, has ended this one."""
        if error.was_sent and not replica.is_closed() and not self._closing.is_set():
            late = f" within {invocation.timeout} s (InvocationTimeoutSeconds)" if error.timed_out else ""
            raise FailedError(f"the container did not answer{late}: {error}") from error

    def _ask_once(self, invocation: Invocation, replica: Replica, file: Path) -> str:
        with self._input(invocation) as (body, known), file.open("wb") as answered:
            headers = {**known, **invocation.headers}
            answer = replica.invoke(body, headers, timeout=invocation.timeout, into=answered)
        content_type = answer.headers.get("Content-Type", DEFAULT_CONTENT_TYPE)
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            with file.open("rb") as error:
                said = error.read(MAX_ERROR_LENGTH).decode(errors="replace")
            raise FailedError(f'the model answered {answer.status}: "{said}"', content_type)
        return content_type

    @contextmanager
    def _input(self, invocation: Invocation) -> Iterator[tuple[Body, Mapping[str, str]]]:
        """Open the body; yield it with the headers that its object has."""
        if not invocation.input:
            yield base64.b64decode(invocation.body), {}
            return
        opened = self._context.store.open(*parse_uri(invocation.input))
        with closing(opened.file) as file:
            content_type = opened.details.headers.get("ContentType", DEFAULT_CONTENT_TYPE)
            size = str(opened.stored.size)  # a container's server may not know HTTP's chunks
            yield partial(_blocks, file), {"Content-Type": content_type, "Content-Length": size}


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Read a file from its beginning, in blocks."""
    file.seek(0)
    return iter(partial(file.read, BLOCK_BYTES), b"")
