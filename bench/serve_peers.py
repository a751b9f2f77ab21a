"""Starts the model servers with dynamic batching, and lists all model servers that bench/serve.py measures.

With the model `slow`, the servers combine up to 8 requests; with `tiny`, they combine none. In each server, one worker
runs the model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from serve_servers import (
    CSV,
    JSON,
    JSON_LINES,
    NPY,
    PEERS,
    Load,
    Server,
    Workspace,
    find_free_port,
    start_bare,
    start_fastapi,
    start_flask,
    start_mms,
    start_ours,
    start_static,
)

TRITON_PYTHON = "/usr/bin/python3.11"
"""Triton contains its own build of Python 3.11.2, which does not run with the standard library of later versions,
such as 3.11.7. Debian 12 has 3.11.2."""


def start_mosec(workspace: Workspace) -> Server:
    port, python = find_free_port(), workspace.create_environment("mosec")
    command: list[str | Path]
    command = [python, PEERS / "mosec_app.py", "--address", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    return workspace.start("mosec", command, port, ping="/")


def start_litserve(workspace: Workspace) -> Server:
    port, python = find_free_port(), workspace.create_environment("litserve")
    command: list[str | Path] = [python, PEERS / "litserve_app.py", str(port)]
    return workspace.start("LitServe", command, port)


def start_bentoml(workspace: Workspace) -> Server:
    port, python = find_free_port(), workspace.create_environment("bentoml")
    command: list[str | Path]
    command = [python, "-m", "bentoml", "serve", "bentoml_app:Server", "--host", "127.0.0.1", "--port", str(port)]
    server = workspace.start("BentoML", command, port, ping="/readyz", BENTOML_DO_NOT_TRACK="True")
    paths = {JSON: "/invocations", CSV: "/text", JSON_LINES: "/text", NPY: "/npy"}
    return replace(server, adapt=lambda load: replace(load, path=paths[load.content_type]))


def start_triton(workspace: Workspace) -> Server:
    port, python = find_free_port(), workspace.create_environment("triton", TRITON_PYTHON)
    command: list[str | Path] = [python, PEERS / "triton_app.py", str(port)]
    server = workspace.start("Triton + PyTriton", command, port, ping="/v2/models/model/ready")
    # Triton cannot be paused: it ends if its processes do not answer in time
    return replace(server, adapt=_adapt_to_triton, can_pause=False)


def _adapt_to_triton(load: Load) -> Load | None:
    """Return the same rows in Triton's JSON, or in its binary format instead of npy."""
    if load.content_type not in (JSON, NPY):
        return None
    rows = np.asarray(load.rows, np.float32)
    features: dict[str, Any] = {"name": "features", "shape": rows.shape, "datatype": "FP32"}
    path = "/v2/models/model/infer"
    if load.content_type == JSON:
        text = json.dumps({"inputs": [{**features, "data": load.rows}]})
        return replace(load, path=path, body=text.encode())
    content: dict[str, Any] = {
        "inputs": [{**features, "parameters": {"binary_data_size": rows.nbytes}}],
        "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(content).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return replace(load, path=path, body=head + rows.tobytes(), headers=headers)


SERVERS: Mapping[str, Callable[[Workspace], Server]] = {
    "ours": start_ours,
    "static": start_static,
    "bare": start_bare,
    "fastapi": start_fastapi,
    "flask": start_flask,
    "mms": start_mms,
    "mosec": start_mosec,
    "litserve": start_litserve,
    "bentoml": start_bentoml,
    "triton": start_triton,
}
