"""Sends objects to the containers of a model on one instance, and assembles the responses.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

import json
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.models.chain import Sender, send
from microjobs_orchestrator.local.resources.models.client import PRIMARY, Client, NoResponseError, ResponseHead
from microjobs_orchestrator.local.resources.transform.joining import DataProcessing, RecordError
from microjobs_orchestrator.local.resources.transform.records import (
    DamagedError,
    RecordTooLargeError,
    read_bodies,
    read_chunks,
)
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.reader import StoredObject

MB = 1 << 20
MAX_MB = 100
"""The limit of MaxPayloadInMB, and of its product with MaxConcurrentTransforms."""
PARAMETERS_TIMEOUT_SECONDS = 10.0
"""Seconds for a container to respond to GET /execution-parameters."""
FIRST_RETRY_DELAY_SECONDS = 0.2
"""Seconds before the first retry of a request. The delay doubles with each retry."""
MAX_RESPONSE_MEMORY_BYTES = 1 << 20
"""Maximum size of a response in memory. Larger responses are stored in files until they are assembled."""
MAX_ERROR_BYTES = 500
"""Maximum number of bytes of a container's error response that a reason quotes."""

STRATEGIES = {"SINGLE_RECORD": "SingleRecord", "MULTI_RECORD": "MultiRecord"}
"""Maps a container's value of BatchStrategy to the value in requests."""


class TransformError(Exception):
    """The model did not transform a record. The message begins with `ClientError` or `AlgorithmError`."""

    def __init__(self, message: str, *, can_retry: bool = False) -> None:
        super().__init__(message)
        self.can_retry = can_retry
        """Whether a retry may succeed."""


@dataclass(frozen=True)
class TransformOptions:
    """Settings for making requests from input objects, and output objects from responses."""

    strategy: str
    max_payload_mb: int
    """The maximum size of a request's body, in MB. If it is 0, each object is one request, sent in HTTP chunks."""
    concurrency: int
    """The number of requests that are sent in parallel."""
    split_type: str
    compression: str
    assemble_with: str
    headers: Mapping[str, str]
    timeout: float
    """Seconds for one request and its whole response."""
    max_retries: int
    processing: DataProcessing | None

    @classmethod
    def read(cls, request: Mapping[str, Any], parameters: Mapping[str, Any]) -> "TransformOptions":
        """Read each setting from the request. If the request does not have it, read it from the container's parameters,
        or use its default. Raise ValidationError if settings contradict each other."""
        source, output, client = (
            request.get(name, {}) for name in ("TransformInput", "TransformOutput", "ModelClientConfig")
        )
        headers = {"Content-Type": source.get("ContentType"), "Accept": output.get("Accept")}
        strategy = parameters.get("BatchStrategy", "MultiRecord")
        options = cls(
            strategy=request.get("BatchStrategy", STRATEGIES.get(strategy, strategy)),
            max_payload_mb=request.get("MaxPayloadInMB", parameters.get("MaxPayloadInMB", 6)),
            # In a request, 0 means that the member is not set.
            concurrency=request.get("MaxConcurrentTransforms") or parameters.get("MaxConcurrentTransforms") or 1,
            split_type=source.get("SplitType", "None"),
            compression=source.get("CompressionType", "None"),
            assemble_with=output.get("AssembleWith", "None"),
            headers={name: value for name, value in headers.items() if value},
            timeout=client.get("InvocationsTimeoutInSeconds", 600),
            max_retries=client.get("InvocationsMaxRetries", 3),
            processing=DataProcessing.read(request),
        )
        if options.max_payload_mb * options.concurrency > MAX_MB:
            raise ValidationError(
                f"MaxPayloadInMB {options.max_payload_mb} times MaxConcurrentTransforms {options.concurrency} "
                f"is more than {MAX_MB} MB: lower one of them."
            )
        if options.max_payload_mb == 0 and options.split_type != "None":
            raise ValidationError(
                f"MaxPayloadInMB 0 sends whole objects: SplitType must be None, not {options.split_type}."
            )
        if options.max_payload_mb == 0 and options.processing is not None:
            raise ValidationError(
                "MaxPayloadInMB 0 sends objects unchanged: set it to 1 or more to use DataProcessing."
            )
        return options


def fetch_execution_parameters(client: Client) -> dict[str, Any]:
    """Return the settings that a container proposes, if any. Raise CannotRunError if its response is malformed."""
    file = BytesIO()
    try:
        response = client.request("GET", "/execution-parameters", timeout=PARAMETERS_TIMEOUT_SECONDS, into=file)
    except NoResponseError:
        return {}
    if response.status != HTTPStatus.OK:
        return {}
    content = file.getvalue()
    try:
        members = json.loads(content or b"{}")
        numbers = {
            name: int(members[name]) for name in ("MaxConcurrentTransforms", "MaxPayloadInMB") if name in members
        }
        strategy = {"BatchStrategy": members["BatchStrategy"]} if "BatchStrategy" in members else {}
        if not {*strategy.values()} <= {*STRATEGIES, *STRATEGIES.values()}:
            raise ValueError(f"BatchStrategy must be one of {', '.join(STRATEGIES)}")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        text = content[:MAX_ERROR_BYTES].decode(errors="replace")
        raise CannotRunError(f"GET /execution-parameters answered {text!r}: {error}") from error
    return {**numbers, **strategy}


@dataclass
class Output:
    """The output of one object: a file, or the reason of its failure."""

    key: str
    input_object: StoredObject
    """The object whose records the requests contain."""
    path: Path
    """The file with the responses until the output is stored."""
    reason: str | None = None
    """The reason of the failure; None if the object has not failed."""

    def add(self, content: IO[bytes], assemble_with: str) -> None:
        """Append one response. If `assemble_with`, the value of AssembleWith, is `Line`, also add a newline unless the
        response ends with one."""
        content.seek(0)
        with self.path.open("ab") as file:
            copyfileobj(content, file)
            if assemble_with == "Line":
                content.seek(max(0, content.tell() - 1))
                if content.read() != b"\n":
                    file.write(b"\n")

    def fail(self, reason: str) -> None:
        """Delete the output. Store the reason, unless an earlier reason is stored."""
        self.reason = self.reason or reason
        self.path.unlink(missing_ok=True)


class Feeder:
    """Transforms one instance's share of the objects, until `stop_event` is set. `folder` is for temporary files."""

    def __init__(self, sender: Sender, options: TransformOptions, folder: Path, stop_event: threading.Event) -> None:
        self._sender = sender
        self._options = options
        self._folder = folder
        self._stop_event = stop_event
        self._window: deque[tuple[Output, Future[IO[bytes]]]] = deque()
        """The requests whose responses are not appended yet, in the order of the input."""

    def feed(self, outputs: Sequence[Output]) -> None:
        """Transform objects. Only a limited number of requests is in memory. If one object fails, the other objects are
        still transformed."""
        with ThreadPoolExecutor(self._options.concurrency) as pool:
            try:
                for output in outputs:
                    output.path.touch()
                    self._feed(output, pool)
                self._collect(max_count=0)
            finally:
                self._discard_requests()

    def _feed(self, output: Output, pool: ThreadPoolExecutor) -> None:
        """Send the requests of one object. If the object cannot be read or split, fail its output."""
        try:
            for body in self._read_bodies(output.input_object.path):
                if self._stop_event.is_set() or output.reason is not None:
                    break
                self._window.append((output, pool.submit(self._transform, body)))
                self._collect(max_count=2 * self._options.concurrency)
        except RecordTooLargeError as error:
            output.fail(f"ClientError: {error}: MaxPayloadInMB is {self._options.max_payload_mb}")
        except DamagedError as error:
            output.fail(f"ClientError: {error}")
        except FileNotFoundError:
            output.fail("ClientError: the object was deleted before it was read")

    def _read_bodies(self, path: Path) -> Iterator[bytes | Path]:
        options = self._options
        if options.max_payload_mb == 0:
            return iter([path])
        return read_bodies(path, options.split_type, options.strategy, options.max_payload_mb * MB, options.compression)

    def _collect(self, max_count: int) -> None:
        """Append responses to their outputs, in the order of the input, until at most `max_count` requests
        remain."""
        while len(self._window) > max_count:
            output, future = self._window.popleft()
            try:
                with future.result() as content:
                    if output.reason is None:
                        output.add(content, self._options.assemble_with)
            except TransformError as error:
                output.fail(str(error))

    def _discard_requests(self) -> None:
        for _, future in self._window:
            if not future.cancel() and future.exception() is None:
                future.result().close()
        self._window.clear()

    def _transform(self, body: bytes | Path) -> IO[bytes]:
        """Filter the body of a request, send it, and return a file with the filtered response."""
        processing = self._options.processing
        if processing is None or isinstance(body, Path):
            return self._invoke(body)
        try:
            with self._invoke(processing.filter_input(body)) as content:
                content.seek(0)
                return BytesIO(processing.filter_output(body, content.read()))
        except RecordError as error:
            raise TransformError(f"ClientError: {error}") from error

    def _invoke(self, body: bytes | Path) -> IO[bytes]:
        """Send a request, with retries, and return a file with the response. Raise TransformError."""
        for attempt in range(self._options.max_retries):
            try:
                return self._send(body)
            except TransformError as error:
                if not error.can_retry or self._stop_event.wait(FIRST_RETRY_DELAY_SECONDS * 2**attempt):
                    raise
        return self._send(body)

    def _send(self, body: bytes | Path) -> IO[bytes]:
        options = self._options
        data = partial(read_chunks, body, options.compression) if isinstance(body, Path) else body
        with ExitStack() as cleanup:
            file = cleanup.enter_context(
                tempfile.SpooledTemporaryFile(MAX_RESPONSE_MEMORY_BYTES, dir=str(self._folder))
            )
            try:
                response = send(self._sender, "/invocations", data, options.headers, timeout=options.timeout, into=file)
            except NoResponseError as error:
                timeout_message = f"no response within {options.timeout:g} s (InvocationsTimeoutInSeconds)"
                text = timeout_message if error.timed_out else f"no response from the container: {error}"
                text = f"{format_container(error.container)}{text}"
                raise TransformError(f"AlgorithmError: {text}", can_retry=True) from error
            except DamagedError as error:
                raise TransformError(f"ClientError: {error}") from error
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                file.seek(0)
                raise _make_error(response, file.read(MAX_ERROR_BYTES).decode(errors="replace"))
            cleanup.pop_all()
            return file


def _make_error(response: ResponseHead, text: str) -> TransformError:
    is_client_error = response.status < HTTPStatus.INTERNAL_SERVER_ERROR
    prefix, container = "ClientError" if is_client_error else "AlgorithmError", format_container(response.container)
    message = f'{prefix}: {container}bad HTTP status received from algorithm: {response.status}, "{text}"'
    return TransformError(message, can_retry=not is_client_error)


def format_container(name: str) -> str:
    """Return the beginning of an error message: a container's name, or nothing for the only container of a model."""
    return "" if name == PRIMARY else f"container {name}: "
