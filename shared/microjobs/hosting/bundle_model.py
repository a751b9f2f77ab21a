"""The model of a bundle, which a training job of this project wrote."""

import time
from functools import partial
from typing import Any

import numpy as np

from microjobs.bundle import RAW, SERVING_DEFAULT, Bundle
from microjobs.errors import UserError
from microjobs.pipelines import OnnxPipeline
from microjobs.predictor import Predictor

from . import formats
from .batching import find_batch_rows
from .content_negotiation import negotiate, parse_attribute
from .formats.json_rows import parse_json, parse_plain_rows, to_array
from .formats.named_rows import ColumnsEncoder, FeatureEncoder, PipelineEncoder, decode_named_rows, to_features
from .formats.rows import Numbers, to_valid_rows
from .media_types import CSV, FORMATS, JSON, NPY
from .responses import HttpError, HttpResponse, quote
from .service import BatchModel, DecodedRequest, Invocation

MAX_FAST_SECONDS = 0.001
"""Maximum processor time of a request with one row to a fast model."""

HEADERS = {name: [("content-type", name)] for name in FORMATS}
"""Headers of responses, by media type."""


class BundleModel:
    """A bundle's model. The constructor runs the model a few times, so that the first client does not wait.

    Args:
        is_batched: whether to measure if batches are faster. The measurement costs memory, because ONNX Runtime keeps
            the memory of the largest batch.
    """

    has_routes = False

    def __init__(self, bundle: Bundle, *, is_batched: bool = True) -> None:
        self._predictor = Predictor(bundle)
        self._features = bundle.manifest.features
        self._signatures = bundle.manifest.signatures
        self._feature_encoder = _open_feature_encoder(bundle)
        self.is_fast = min(self._time_one_row() for _ in range(3)) < MAX_FAST_SECONDS
        self.max_batch_rows = 1
        if is_batched:
            self.max_batch_rows = find_batch_rows(self.predict, self._features)

    @property
    def batch_model(self) -> BatchModel | None:
        return self if self.max_batch_rows > 1 else None

    def invoke(self, invocation: Invocation) -> HttpResponse:
        request = self.decode(invocation)
        return request.encode(self.predict(request.rows))

    def decode(self, invocation: Invocation) -> DecodedRequest:
        """Return the features of an invocation as float32, and the function that encodes the response.

        See `microjobs.hosting.service.BatchModel`.
        """
        body, content_type, accept, custom_attributes = invocation[:4]
        request_type, response_type = negotiate(content_type, accept)
        signature = (
            parse_attribute(custom_attributes, "signature_name") if custom_attributes else None
        ) or SERVING_DEFAULT
        if ";" in content_type or body[0] not in formats.FIRST_BYTES_WITHOUT_MARK:
            body = formats.to_utf8(body, content_type)
        numbers, signature, member = self._read(body, request_type, signature)
        if signature not in self._signatures:
            raise HttpError(400, f"signature_name {quote(signature)} is unknown: send {' or '.join(self._signatures)}")
        rows = self._scale(to_valid_rows(numbers, self._features), signature)
        return DecodedRequest(rows, partial(self._encode, response_type, member))

    def predict(self, rows: Numbers) -> Numbers:
        """Return predictions of shape (rows, 1) for features as float32."""
        return self._predictor.predict(rows)

    def _encode(self, response_type: str, member: str, predictions: Numbers) -> HttpResponse:
        body = formats.encode(predictions, response_type, member)
        # Text formats write null for a number that is not finite. Searching the text is faster than checking numbers.
        if b"null" in body or response_type == NPY:
            _check_finite(predictions)
        return HttpResponse(200, HEADERS[response_type], body, row_count=len(predictions))

    def _read(self, body: bytes, media_type: str, signature: str) -> tuple[Numbers, str, str]:
        """Return the rows, the name of the signature (`signature` by default), and the name of the response's member.

        As in TensorFlow Serving, the response's member is `outputs` for `inputs`, otherwise `predictions`.
        """
        if media_type != JSON:
            return self._decode(body, media_type, signature), signature, "predictions"
        has_named_columns = self._feature_encoder is not None and signature == RAW
        if (
            not has_named_columns
            and (rows := parse_plain_rows(body, None if body.startswith(b"[") else "instances")) is not None
        ):
            return rows, signature, "predictions"
        content = parse_json(body)
        if isinstance(content, list):
            return self._convert(content, body, signature), signature, "predictions"
        if not isinstance(content, dict):
            raise HttpError(400, f'the body is {quote(content)}: send {{"instances": [[…], …]}} or [[…], …]')
        request_member, member = _find_member_names(content)
        signature = content.get("signature_name", signature) or SERVING_DEFAULT
        return self._convert(content[request_member], body, signature), signature, member

    def _decode(self, body: bytes, media_type: str, signature: str) -> Numbers:
        if self._feature_encoder is not None and signature == RAW:
            return decode_named_rows(body, media_type, self._feature_encoder)
        return formats.decode(body, media_type)

    def _convert(self, rows: Any, body: bytes, signature: str) -> Numbers:
        """Convert rows of a JSON body. For signature `raw`, they have named columns if the training data had them."""
        if self._feature_encoder is not None and signature == RAW:
            return to_features(rows, self._feature_encoder)
        return to_array(rows, body)

    def _time_one_row(self) -> float:
        """Return the processor time of a request with one row, in seconds. Other programs do not affect it."""
        start_time = time.thread_time()
        self.invoke(Invocation(formats.encode(np.zeros((1, self._features)), CSV), CSV, "", ""))
        return time.thread_time() - start_time

    def _scale(self, rows: Numbers, signature: str) -> Numbers:
        """Return rows as float32. Scale rows for signature `raw`, unless they were made from named columns."""
        if signature != RAW or self._feature_encoder is not None:
            return rows.astype(np.float32, copy=False)
        with np.errstate(over="ignore"):  # scaling can overflow float32; `_encode` then reports the prediction
            return self._predictor.scale(rows)


def _open_feature_encoder(bundle: Bundle) -> FeatureEncoder | None:
    """Return the encoder that makes features from named columns; None if signature `raw` takes arrays.

    Raises:
        UserError: pipeline.onnx cannot be loaded, or its number of features differs from the model's.
    """
    if bundle.columns is not None:
        return ColumnsEncoder(bundle.columns)
    if bundle.pipeline_file is None:
        return None
    pipeline = OnnxPipeline(bundle.pipeline_file)
    if pipeline.features not in (None, bundle.manifest.features):
        raise UserError(
            f"{bundle.pipeline_file} makes {pipeline.features} features, but the model has {bundle.manifest.features}: "
            "train the model again"
        )
    return PipelineEncoder(pipeline)


def _find_member_names(content: dict[str, object]) -> tuple[str, str]:
    """Return the name of the request's member with the rows, and the name of the response's member.

    Raises:
        HttpError: 400, the request has other members, or not exactly one of `instances` and `inputs`.
    """
    unknown_members = content.keys() - {"instances", "inputs", "signature_name"}
    if unknown_members or ("instances" in content) == ("inputs" in content):
        names = ", ".join(sorted(map(quote, content))) or "nothing"
        raise HttpError(400, f'the body has {names}: send "instances" or "inputs", and "signature_name" if needed')
    return ("instances", "predictions") if "instances" in content else ("inputs", "outputs")


def _check_finite(predictions: Numbers) -> None:
    is_finite = np.isfinite(predictions)
    if not is_finite.all():
        row = np.argwhere(~is_finite)[0][0]
        raise HttpError(500, f"the prediction for row {row} is not a finite number: its features are out of range")
