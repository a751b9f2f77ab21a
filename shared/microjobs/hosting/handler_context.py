"""The context that handlers can take. It contains the request's headers, and receives the status and headers of the
response.

It has the same methods as the context of multi-model-server, which `sagemaker-inference` passes to handlers.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

logger = logging.getLogger("microjobs")


class RequestHeaders(dict[str, str]):
    """Header fields by their usual names, such as `Content-Type`; lookups ignore case."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__({_canonicalize(name): value for name, value in fields.items()})

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(_canonicalize(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_canonicalize(str(name)))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(_canonicalize(name), default)


class RequestProcessor:
    """The headers of one request, and the status and headers of its response."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._request_headers = RequestHeaders(headers)
        self._response_headers: dict[str, str] = {}
        self._status = 200
        self._phrase = ""

    def get_request_property(self, key: str) -> str | None:
        value: str | None = self._request_headers.get(key)
        return value

    def get_request_properties(self) -> RequestHeaders:
        return self._request_headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status, self._phrase = code, reason_phrase or ""

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str:
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_headers[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_headers

    def get_response_header(self, key: str) -> str | None:
        return self._response_headers.get(key)


class Metrics:
    """Logs the metrics of users' code, as AWS's images do."""

    def _log(self, name: str, value: object, *_: object, **__: object) -> None:
        logger.info("metric %s: %s", name, value)

    add_counter = add_time = add_size = add_percent = add_error = add_metric = _log


class Context:
    """The value of a handler's parameter `context`.

    Args:
        headers: headers of the request; None while the model is being loaded.
    """

    model_name = "model"
    manifest = None

    def __init__(self, model_dir: str, headers: Mapping[str, str] | None = None) -> None:
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "microjobs",
            "server_version": "1",
        }
        self.request_processor = None if headers is None else [RequestProcessor(headers)]
        self.request_ids = {0: str(uuid.uuid4())} if headers is not None else None
        self.metrics = Metrics()

    def request(self, index: int = 0) -> RequestProcessor:
        """Return the processor of the request.

        Raises:
            RuntimeError: the model is being loaded.
        """
        if self.request_processor is None:
            raise RuntimeError("no request is available while the model is being loaded")
        return self.request_processor[index]

    def get_request_id(self, idx: int = 0) -> str | None:
        return (self.request_ids or {}).get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> RequestHeaders:
        return self.request(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.request(idx).get_response_header("content-type")

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request(idx).report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        self.set_response_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        return self.request(idx).get_response_status_code(), self.request(idx).get_response_status_phrase()

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.request(idx).get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request(idx).add_response_property(key, value)


def _canonicalize(name: str) -> str:
    """Return the usual form of a name: `content-type` → `Content-Type`; SageMaker's own headers as AWS writes them."""
    words = (word.capitalize() for word in name.split("-"))
    return "-".join(words).replace("Sagemaker", "SageMaker")


def list_response_headers(processor: RequestProcessor) -> Iterator[tuple[str, str]]:
    """Yield the headers that a handler set, except the content type and the headers that the server sets.

    Raises:
        ValueError: a name or value contains a character that headers must not contain.
    """
    for name, value in processor.get_response_headers().items():
        if name.lower() not in ("content-type", "content-length", "transfer-encoding", "connection"):
            yield check_header(name).lower(), check_header(value)


def check_header(text: object) -> str:
    """Return a header's name or value.

    Raises:
        ValueError: it contains a character that headers must not contain.
    """
    if not (value := str(text)).isascii() or not value.isprintable():
        raise ValueError(f"{value!r} is not valid in a header: use printable ASCII characters")
    return value
