"""Sends objects to one container that serves a model, and assembles its answers.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

import json
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.models.client import Client, NoAnswerError
from microjobs_orchestrator.local.resources.transform.joining import DataProcessing, RecordError
from microjobs_orchestrator.local.resources.transform.records import DamagedError, RecordTooLargeError, bodies, chunks
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from microjobs_orchestrator.local.s3.reader import StoredObject

MB = 1 << 20
MAX_MB = 100
"""The limit of MaxPayloadInMB, and of its product with MaxConcurrentTransforms."""
PARAMETERS_TIMEOUT = 10.0
FIRST_RETRY_DELAY = 0.2
MAX_MEMORY_BYTES = 1 << 20
"""Larger answers are kept in files until they are assembled."""
MAX_ERROR_LENGTH = 500
"""Characters of a container's error."""

STRATEGIES = {"SINGLE_RECORD": "SingleRecord", "MULTI_RECORD": "MultiRecord"}
"""The values of BatchStrategy in requests, by those of containers."""


class FailedError(Exception):
    """The model did not transform a record. The message begins like a FailureReason."""

    def __init__(self, message: str, *, can_retry: bool) -> None:
        super().__init__(message)
        self.can_retry = can_retry
        """Whether a retry may succeed."""


@dataclass(frozen=True)
class Options:
    """The settings that turn objects into requests and answers into objects."""

    strategy: str
    payload_mb: int
    """0: objects are sent whole, in HTTP's chunks."""
    concurrency: int
    split: str
    compression: str
    assemble: str
    headers: Mapping[str, str]
    timeout: float
    retries: int
    processing: DataProcessing | None

    @classmethod
    def of(cls, request: Mapping[str, Any], parameters: Mapping[str, Any]) -> "Options":
        """Return the settings of the request, else those of the container, else the defaults.

        Raises:
            ValidationError: SageMaker does not support the combination.
        """
        given, client = request["TransformInput"], request.get("ModelClientConfig", {})
        named = {"Content-Type": given.get("ContentType"), "Accept": request["TransformOutput"].get("Accept")}
        strategy = parameters.get("BatchStrategy", "MultiRecord")
        options = cls(
            strategy=request.get("BatchStrategy", STRATEGIES.get(strategy, strategy)),
            payload_mb=request.get("MaxPayloadInMB", parameters.get("MaxPayloadInMB", 6)),
            # In a request 0 is as good as nothing.
            concurrency=request.get("MaxConcurrentTransforms") or parameters.get("MaxConcurrentTransforms") or 1,
            split=given.get("SplitType", "None"),
            compression=given.get("CompressionType", "None"),
            assemble=request["TransformOutput"].get("AssembleWith", "None"),
            headers={name: value for name, value in named.items() if value},
            timeout=client.get("InvocationsTimeoutInSeconds", 600),
            retries=client.get("InvocationsMaxRetries", 3),
            processing=DataProcessing.of(request),
        )
        if options.payload_mb * options.concurrency > MAX_MB:
            raise ValidationError(
                f"MaxPayloadInMB {options.payload_mb} times MaxConcurrentTransforms {options.concurrency} "
                f"is more than {MAX_MB} MB: lower one of them."
            )
        if options.payload_mb == 0 and options.split != "None":
            raise ValidationError(f"MaxPayloadInMB 0 sends whole objects: SplitType {options.split} must be None.")
        if options.payload_mb == 0 and options.processing is not None:
            raise ValidationError("MaxPayloadInMB 0 sends objects as they are: DataProcessing needs it to be larger.")
        return options


def execution_parameters(client: Client) -> dict[str, Any]:
    """Return the settings that a container proposes; none if it has no such route.

    Raises:
        CannotRunError: its answer is malformed.
    """
    answered = BytesIO()
    try:
        answer = client.request("GET", "/execution-parameters", timeout=PARAMETERS_TIMEOUT, into=answered)
    except NoAnswerError:
        return {}
    if answer.status != HTTPStatus.OK:
        return {}
    try:
        content = json.loads(answered.getvalue() or b"{}")
        known = {name: int(content[name]) for name in ("MaxConcurrentTransforms", "MaxPayloadInMB") if name in content}
        strategy = {"BatchStrategy": content["BatchStrategy"]} if "BatchStrategy" in content else {}
        if strategy and strategy["BatchStrategy"] not in (*STRATEGIES, *STRATEGIES.values()):
            raise ValueError(f"BatchStrategy is none of {', '.join(STRATEGIES)}")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        said = answered.getvalue()[:MAX_ERROR_LENGTH].decode(errors="replace")
        raise CannotRunError(f"GET /execution-parameters answered {said!r}: {error}") from error
    return {**known, **strategy}


@dataclass
class Output:
    """The output of one object: a file, or the reason of its failure."""

    key: str
    """The key of the output."""
    item: StoredObject
    path: Path
    reason: str | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)

    def add(self, answer: IO[bytes], assemble: str) -> None:
        """Append one answer. `Line` adds a newline unless the answer ends with one."""
        if self._file is None:
            self._file = self.path.open("wb")
        answer.seek(0)
        copyfileobj(answer, self._file)
        if assemble == "Line" and not _ends_with_newline(answer):
            self._file.write(b"\n")

    def fail(self, reason: str) -> None:
        """Delete the output; keep the first reason."""
        self.reason = self.reason or reason
        self.close()
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        if self.reason is None and self._file is None:
            self.path.touch()  # no records
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _ends_with_newline(file: IO[bytes]) -> bool:
    if file.seek(0, 2) == 0:
        return False
    file.seek(-1, 2)
    return file.read() == b"\n"


class Feeder:
    """Transforms one container's share of the objects.

    Args:
        folder: for unfinished outputs.
        stopping: set when the job ends.
    """

    def __init__(self, client: Client, options: Options, folder: Path, stopping: threading.Event) -> None:
        self._client = client
        self._options = options
        self._folder = folder
        self._stopping = stopping
        self._window: deque[tuple[Output, Future[IO[bytes]] | None]] = deque()
        """Running requests and the ends of outputs, in the order of the input."""

    def feed(self, outputs: Sequence[Output]) -> None:
        """Transform objects, several requests at a time, also over the border of two objects.

        In memory are the requests of a window, whatever the objects' sizes. An object that fails does not end others.
        """
        with ThreadPoolExecutor(self._options.concurrency) as pool:
            try:
                for output in outputs:
                    self._feed(output, pool)
                self._collect(0)
            finally:
                self._drop()
                for output in outputs:
                    output.close()

    def _feed(self, output: Output, pool: ThreadPoolExecutor) -> None:
        try:
            for body in self._bodies(output.item.path):
                if self._stopping.is_set() or output.reason is not None:
                    break
                self._window.append((output, pool.submit(self._ask, body)))
                self._collect(2 * self._options.concurrency)
        except RecordTooLargeError as error:
            output.fail(f"ClientError: {error}: MaxPayloadInMB is {self._options.payload_mb}")
        except DamagedError as error:
            output.fail(f"ClientError: {error}")
        except FileNotFoundError:
            output.fail("ClientError: the object was deleted before it was read")
        self._window.append((output, None))

    def _bodies(self, path: Path) -> Iterator[bytes | Path]:
        options = self._options
        if options.payload_mb == 0:
            return iter([path])
        return bodies(
            path,
            split=options.split,
            strategy=options.strategy,
            most=options.payload_mb * MB,
            compression=options.compression,
        )

    def _collect(self, leave: int) -> None:
        """Take answers in their order until `leave` entries are left."""
        while len(self._window) > leave:
            output, future = self._window.popleft()
            if future is None:
                output.finish()
                continue
            try:
                with future.result() as answer:
                    if output.reason is None:
                        output.add(answer, self._options.assemble)
            except FailedError as error:
                output.fail(str(error))

    def _drop(self) -> None:
        """Discard the rest of the window after an error."""
        for _, future in self._window:
            if future is not None and not future.cancel() and future.exception() is None:
                future.result().close()
        self._window.clear()

    def _ask(self, body: bytes | Path) -> IO[bytes]:
        """Return one answer, after filters and joining."""
        processing = self._options.processing
        if processing is None or isinstance(body, Path):
            return self._answer(body)
        try:
            with self._answer(processing.before(body)) as answered:
                answered.seek(0)
                return BytesIO(processing.after(body, answered.read()))
        except RecordError as error:
            raise FailedError(f"ClientError: {error}", can_retry=False) from error

    def _answer(self, body: bytes | Path) -> IO[bytes]:
        """Return the model's answer; retry after server errors and timeouts."""
        for attempt in range(self._options.retries):
            try:
                return self._ask_once(body)
            except FailedError as error:
                if not error.can_retry or self._stopping.wait(FIRST_RETRY_DELAY * 2**attempt):
                    raise
        return self._ask_once(body)

    def _ask_once(self, body: bytes | Path) -> IO[bytes]:
        options = self._options
        answered: IO[bytes] = tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES, dir=str(self._folder))  # noqa: SIM115
        try:
            answer = self._client.request(
                "POST",
                "/invocations",
                partial(chunks, body, options.compression) if isinstance(body, Path) else body,
                options.headers,
                timeout=options.timeout,
                into=answered,
            )
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise _refusal(answer.status, answered)
        except NoAnswerError as error:
            answered.close()
            late = f"no answer within {options.timeout:g} s (InvocationsTimeoutInSeconds)"
            said = late if error.timed_out else f"no answer from the container: {error}"
            raise FailedError(f"AlgorithmError: {said}", can_retry=True) from error
        except DamagedError as error:
            answered.close()
            raise FailedError(f"ClientError: {error}", can_retry=False) from error
        except BaseException:
            answered.close()
            raise
        return answered


def _refusal(status: int, answered: IO[bytes]) -> FailedError:
    answered.seek(0)
    said = answered.read(MAX_ERROR_LENGTH).decode(errors="replace")
    is_ours = status < HTTPStatus.INTERNAL_SERVER_ERROR
    whose = "ClientError" if is_ours else "AlgorithmError"
    text = f'{whose}: bad HTTP status received from algorithm: {status}, "{said}"'
    return FailedError(text, can_retry=not is_ours)
