"""mosec with `fast_codec`. One worker process decodes, predicts and encodes."""

from typing import Any

import fast_codec
import model
import numpy as np
from mosec import Server, Worker


class Model(Worker):  # type: ignore[misc]  # mosec is not installed where mypy runs
    def __init__(self) -> None:
        super().__init__()
        self.session = model.load()

    def deserialize(self, data: bytes) -> Any:
        body = bytes(data)
        content_type = model.detect_type(body)
        return fast_codec.decode(body, content_type), content_type

    def forward(self, data: Any) -> Any:
        if model.BATCH_REQUESTS == 1:
            rows, content_type = data
            return model.predict(self.session, rows), content_type
        predictions = model.predict(self.session, np.concatenate([rows for rows, _ in data]))
        parts = np.split(predictions, np.cumsum([len(rows) for rows, _ in data])[:-1])
        return [(part, content_type) for part, (_, content_type) in zip(parts, data, strict=True)]

    def serialize(self, data: Any) -> bytes:
        return fast_codec.encode(*data)


if __name__ == "__main__":
    server = Server()
    options = {"max_wait_time": int(model.BATCH_SECONDS * 1000)} if model.BATCH_REQUESTS > 1 else {}
    server.append_worker(Model, max_batch_size=model.BATCH_REQUESTS, route="/invocations", **options)
    server.run()
