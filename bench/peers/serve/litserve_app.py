"""LitServe with `fast_codec`. Only the decoding of JSON is LitServe's own."""

import sys
from typing import Annotated, Any

import fast_codec
import litserve
import model
import numpy as np
from fastapi import Body, Response


class Api(litserve.LitAPI):  # type: ignore[misc]  # LitServe is not installed where mypy runs
    def setup(self, _device: str) -> None:
        self.session = model.load()

    def decode_request(self, request: Annotated[Any, Body()]) -> Any:
        if isinstance(request, dict):
            return np.array(request["instances"]), model.JSON
        content_type = model.detect_type(request)
        return fast_codec.decode(request, content_type), content_type

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, data: Any) -> Any:
        if model.BATCH_REQUESTS == 1:
            rows, content_type = data
            return model.predict(self.session, rows), content_type
        predictions = model.predict(self.session, np.concatenate([rows for rows, _ in data]))
        parts = np.split(predictions, np.cumsum([len(rows) for rows, _ in data])[:-1])
        return [(part, content_type) for part, (_, content_type) in zip(parts, data, strict=True)]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Response:
        predictions, content_type = output
        return Response(fast_codec.encode(predictions, content_type), media_type=content_type)


if __name__ == "__main__":
    api = Api(max_batch_size=model.BATCH_REQUESTS, batch_timeout=model.BATCH_SECONDS, api_path="/invocations")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/ping")
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
