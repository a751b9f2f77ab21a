"""Triton, through PyTriton, which runs the model in Python. Clients send Triton's own JSON and binary formats."""

import sys
from typing import Any

import model
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

session = model.load()


@batch  # type: ignore[untyped-decorator]  # PyTriton is not installed where mypy runs
def predict(features: Any) -> dict[str, Any]:
    return {"predictions": model.predict(session, features)}


if __name__ == "__main__":
    port = int(sys.argv[1])
    settings = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False, http_thread_count=1
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(model.BATCH_SECONDS * 1e6))
    batching = {"batcher": batcher} if model.BATCH_REQUESTS > 1 else {}
    with Triton(config=settings) as triton:
        triton.bind(
            model_name="model",
            infer_func=predict,
            inputs=[Tensor(name="features", dtype=np.float32, shape=(13,))],
            outputs=[Tensor(name="predictions", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=2048, **batching),
        )
        triton.serve()
