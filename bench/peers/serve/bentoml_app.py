"""BentoML, which decodes and encodes JSON itself. It passes CSV and JSON lines as text, and npy as a file, and
`fast_codec` decodes and encodes them."""

from pathlib import Path
from typing import Annotated

import bentoml
import fast_codec
import model
import numpy as np
from bentoml.validators import ContentType
from numpy.typing import NDArray


@bentoml.service(workers=1, threads=1, logging={"access": {"enabled": False}})
class Server:
    def __init__(self) -> None:
        self.session = model.load()

    @bentoml.api(route="/invocations", batchable=model.BATCH_REQUESTS > 1, max_batch_size=256)  # type: ignore[untyped-decorator]  # BentoML is not installed where mypy runs
    def invocations(self, instances: NDArray[np.float32]) -> NDArray[np.float32]:
        return model.predict(self.session, instances)

    @bentoml.api(route="/text")  # type: ignore[untyped-decorator]  # BentoML is not installed where mypy runs
    def text(self, body: str, /) -> str:
        content = body.encode()
        return fast_codec.predict_body(self.session, content, model.detect_type(content)).decode()

    @bentoml.api(route="/npy")  # type: ignore[untyped-decorator]  # BentoML is not installed where mypy runs
    def npy(self, body: Annotated[Path, ContentType(model.NPY)], /) -> Annotated[Path, ContentType(model.NPY)]:
        body.write_bytes(fast_codec.predict_body(self.session, body.read_bytes(), model.NPY))
        return body
