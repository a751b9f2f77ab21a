"""Memory of the image serve with a large model and several workers.

    uv run python bench/serve_memory.py [MEGABYTES [WORKERS]]

The model has layers of 64 MB. The memory of the server is the sum of the proportional set sizes of its processes.
Prints the highest memory while the server starts, and the memory after several requests per worker.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from serve_servers import REPOSITORY, find_free_port

from microjobs.bundle import MODEL_FILE, Manifest, write_manifest
from microjobs.hosting.memory import MB, measure_process_tree_bytes

WIDTH = 4096
LAYER_MB = WIDTH * WIDTH * 4 // MB
SAMPLE_SECONDS = 0.05
TIMEOUT_SECONDS = 300.0
REQUESTS_PER_WORKER = 8


def main(arguments: Sequence[str]) -> None:
    default_arguments = ("1000", "4")
    megabytes, workers = map(int, (*arguments, *default_arguments[len(arguments) :]))
    with tempfile.TemporaryDirectory() as folder:
        size = write_model(Path(folder) / "model", megabytes // LAYER_MB)
        peak, steady = measure(Path(folder), workers)
    print(
        f"{workers} workers, a model of {size / MB:.0f} MB: {steady / MB:.0f} MB ({steady / size:.2f} times the model)"
    )
    print(f"highest while starting: {peak / MB:.0f} MB ({peak / size:.2f} times the model)")


def write_model(folder: Path, layers: int) -> int:
    """Write a bundle, and return the size of its model in bytes."""
    folder.mkdir()
    random = np.random.default_rng(0)  # ONNX Runtime would store equal weights once
    names = [f"w{index}" for index in range(layers)]
    nodes = [helper.make_node("MatMul", [f"h{index}", name], [f"h{index + 1}"]) for index, name in enumerate(names)]
    nodes.append(helper.make_node("ReduceSum", [f"h{layers}", "axis"], ["y"], keepdims=1))
    initializers = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH), np.float32) / WIDTH, name) for name in names
    ]
    initializers.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        initializers,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / MODEL_FILE)
    write_manifest(folder, Manifest(framework="onnx", features=WIDTH))
    return (folder / MODEL_FILE).stat().st_size


def measure(root: Path, workers: int) -> tuple[int, int]:
    """Return the highest memory before the server is ready, and the memory after some requests, in bytes."""
    url = f"http://127.0.0.1:{(port := find_free_port())}"
    variables = {
        "MICROJOBS_JOB": str(REPOSITORY / "containers" / "serve"),
        "SAGEMAKER_BASE_DIR": str(root),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers),
    }
    command = [sys.executable, "-m", "microjobs", "serve"]
    with subprocess.Popen(command, env=os.environ | variables) as server:
        try:
            peak, deadline = 0, time.monotonic() + TIMEOUT_SECONDS
            while not request_succeeds(f"{url}/ping"):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server is not ready: see its log above")
                peak = max(peak, measure_process_tree_bytes(server.pid))
                time.sleep(SAMPLE_SECONDS)
            row = ",".join(["1"] * WIDTH).encode()
            for _ in range(REQUESTS_PER_WORKER * workers):
                assert request_succeeds(f"{url}/invocations", row), "an invocation failed: see the log above"  # noqa: S101
            return peak, measure_process_tree_bytes(server.pid)
        finally:
            server.terminate()


def request_succeeds(url: str, body: bytes | None = None) -> bool:
    request = urllib.request.Request(url, body, {"Content-Type": "text/csv"})
    with suppress(OSError), urllib.request.urlopen(request, timeout=60) as response:
        return bool(response.status == 200)
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
