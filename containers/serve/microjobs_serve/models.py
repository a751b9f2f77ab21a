"""What answers an invocation: a model bundle here, a user's own code in handlers.py."""

import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from microjobs.bundle import RAW, SERVING_DEFAULT, Bundle
from microjobs.predictor import Predictor

from . import formats, media
from .answers import Answer, Problem, shown

QUICK_SECONDS = 0.001

HEADERS = {name: [("content-type", name)] for name in media.FORMATS}


class Fields(Protocol):
    """All header fields of a request."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class Request(NamedTuple):
    """An invocation: its body and the headers that say what it is, empty where absent."""

    body: bytes
    content_type: str
    accept: str
    attributes: str
    headers: Fields | None = None


class Model(Protocol):
    """A model that is ready to answer; a quick one within what handing a small request to a thread would cost."""

    @property
    def quick(self) -> bool: ...

    def invoke(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            Problem: the request is refused.
        """


class BundleModel:
    """A bundle of the train jobs, its model loaded and run once so that the first client does not wait."""

    def __init__(self, bundle: Bundle) -> None:
        self._predictor = Predictor(bundle)
        self._features = bundle.manifest.features
        self._signatures = bundle.manifest.signatures
        self.quick = min(self._seconds() for _ in range(3)) < QUICK_SECONDS

    def invoke(self, request: Request) -> Answer:
        given, wanted = media.negotiate(request.content_type, request.accept)
        signature = media.attribute(request.attributes, "signature_name") if request.attributes else None
        member = "predictions"
        body = request.body
        if ";" in request.content_type or body[0] not in formats.UNMARKED:
            body = formats.utf8(body, request.content_type)
        if given == media.JSON:
            numbers, signature, member = self._read_json(body, signature)
        else:
            numbers = formats.decode(body, given)
        if (signature or SERVING_DEFAULT) not in self._signatures:
            raise Problem(400, f"signature_name {shown(signature)} is unknown: send {' or '.join(self._signatures)}")
        rows = formats.as_rows(numbers, self._features)
        predictions = self._predict(rows, signature or SERVING_DEFAULT)
        answer = formats.encode(predictions, wanted, member)
        # In text, what is not a finite number became null, which is cheaper to find than to look at each number.
        if b"null" in answer or (wanted == media.NPY and not np.isfinite(predictions).all()):
            row = np.argwhere(~np.isfinite(predictions))[0][0]
            raise Problem(500, f"the prediction for row {row} is not a finite number: its features are out of range")
        return Answer(200, HEADERS[wanted], answer, len(rows))

    def _seconds(self) -> float:
        """What a request of one row takes."""
        started = time.perf_counter()
        self.invoke(Request(formats.encode(np.zeros((1, self._features)), media.CSV), media.CSV, "", ""))
        return time.perf_counter() - started

    def _read_json(self, body: bytes, signature: str | None) -> tuple[formats.Numbers, str | None, str]:
        """Read rows, the signature's name and the name of the answer's member.

        `instances` and bare rows are answered by `predictions`, `inputs` by `outputs`, as TensorFlow Serving does.
        """
        if (plain := formats.plain_rows(body, None if body.startswith(b"[") else "instances")) is not None:
            return plain, signature, "predictions"
        content = formats.parse_json(body)
        if isinstance(content, list):
            return formats.numbers_of(content, body), signature, "predictions"
        if not isinstance(content, dict):
            raise Problem(400, f'the body is {shown(content)}: send {{"instances": [[…], …]}} or [[…], …]')
        unknown = content.keys() - {"instances", "inputs", "signature_name"}
        if unknown or ("instances" in content) == ("inputs" in content):
            names = ", ".join(sorted(map(shown, content))) or "nothing"
            raise Problem(400, f'the body has {names}: send "instances" or "inputs", and "signature_name" if need be')
        form, member = ("instances", "predictions") if "instances" in content else ("inputs", "outputs")
        return formats.numbers_of(content[form], body), content.get("signature_name", signature), member

    def _predict(self, rows: formats.Numbers, signature: str) -> formats.Numbers:
        if signature != RAW:
            return self._predictor.predict(rows, signature)
        with np.errstate(over="ignore"):  # scaled, a number may leave float32; told by the prediction
            return self._predictor.predict(rows, signature)
