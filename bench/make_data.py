"""Writes data and models for the benchmarks.

The benchmarks run this program as a separate process, so that they do not measure its memory.

make_data.py arrays FOLDER SPLIT ROWS DTYPE SHARDS
make_data.py model FOLDER
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from microjobs.arrays import write_array
from microjobs.bundle import MODEL_FILE, Manifest, write_manifest

FEATURES = 13
UNITS = (FEATURES, 128, 64, 1)
"""The MLP that both trainers build: the number of its inputs, then the number of units in each layer."""
CHUNK_ROWS = 100_000


def write_arrays(folder: Path, split: str, rows: int, dtype: str, shard_count: int) -> None:
    """Write x and y of one split, each as one file or as `shard_count` shards."""
    random = np.random.default_rng(0)
    for shard in range(shard_count):
        suffix = "" if shard_count == 1 else f"-{shard:05}-of-{shard_count:05}"
        shard_rows = rows // shard_count
        with write_array(folder / f"x_{split}{suffix}.npy", (shard_rows, FEATURES), np.dtype(dtype)) as writer:
            for start in range(0, shard_rows, CHUNK_ROWS):
                writer.write(start, random.normal(0, 1, (min(CHUNK_ROWS, shard_rows - start), FEATURES)))
        np.save(folder / f"y_{split}{suffix}.npy", random.normal(size=shard_rows).astype(dtype))


def write_model(folder: Path) -> None:
    """Write a bundle with the MLP, and the weights for Keras in the same folder."""
    random = np.random.default_rng(0)
    weights = {}
    for number, (before, after) in enumerate(pairwise(UNITS)):
        weights[f"kernel{number}"] = random.normal(0, before**-0.5, (before, after)).astype(np.float32)
        weights[f"bias{number}"] = random.normal(0, 0.1, after).astype(np.float32)
    folder.mkdir(parents=True)
    np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]  # for mypy, a key could be allow_pickle
    nodes, last_tensor = [], "features"
    for number in range(len(UNITS) - 1):
        nodes.append(helper.make_node("Gemm", [last_tensor, f"kernel{number}", f"bias{number}"], [f"dense{number}"]))
        nodes.append(helper.make_node("Relu", [f"dense{number}"], [f"relu{number}"]))
        last_tensor = f"relu{number}"
    nodes.pop()
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / MODEL_FILE)
    write_manifest(folder, Manifest(framework="onnx", features=FEATURES))


if __name__ == "__main__":
    command, target, *arguments = sys.argv[1:]
    if command == "arrays":
        write_arrays(Path(target), arguments[0], int(arguments[1]), arguments[2], int(arguments[3]))
    else:
        write_model(Path(target))
