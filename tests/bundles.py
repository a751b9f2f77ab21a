"""Small model bundles, made without a framework."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from onnx import GraphProto, TensorProto, helper, numpy_helper, save

from microjobs.bundle import MODEL_FILE, Manifest, write_manifest
from microjobs.columns import FittedColumns, write_columns
from microjobs.scaler import Scaler, write_scaler


def write_linear_bundle(
    folder: Path,
    weights: ArrayLike,
    bias: float,
    scaler: Scaler | None = None,
    columns: FittedColumns | None = None,
) -> None:
    """Write a bundle that predicts `weights · x + bias`."""
    weight_matrix = np.asarray(weights, np.float32).reshape(-1, 1)
    features = len(weight_matrix)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["features", "weights", "bias"], ["predictions"])],
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info("predictions", TensorProto.FLOAT, ["rows", 1])],
        [
            numpy_helper.from_array(weight_matrix, "weights"),
            numpy_helper.from_array(np.array([bias], np.float32), "bias"),
        ],
    )
    _write_bundle(folder, graph, features)
    if scaler is not None:
        write_scaler(folder, scaler)
    if columns is not None:
        write_columns(folder, columns)


def write_large_bundle(folder: Path, megabytes: int, features: int = 256) -> None:
    """Write a bundle whose weights need `megabytes` of memory. It predicts the sum of the absolute feature values."""
    width = megabytes * 1024 * 1024 // (4 * features)
    weights = np.zeros((features, width), np.float32)
    np.fill_diagonal(weights, 1.0)
    weights[:, features:] = np.random.default_rng(0).standard_normal((features, width - features), np.float32)
    output_weights = np.zeros((width, 1), np.float32)
    output_weights[:features] = 1.0
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["hidden"]),
            helper.make_node("Abs", ["hidden"], ["absolute"]),
            helper.make_node("MatMul", ["absolute", "output_weights"], ["predictions"]),
        ],
        "large",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info("predictions", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(output_weights, "output_weights")],
    )
    _write_bundle(folder, graph, features)


def _write_bundle(folder: Path, graph: GraphProto, features: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / MODEL_FILE)
    write_manifest(folder, Manifest(framework="onnx", features=features))
