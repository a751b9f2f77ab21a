"""Starts servers that bench/serve.py measures, each on one core with the same model."""

import getpass
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from microjobs.bundle import MODEL_FILE, Manifest, write_manifest

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers" / "serve"
FEATURES = 13
SERVER_CORE = "0"
DEBIAN_PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "java": "default-jre-headless", "taskset": "util-linux"}
"""Debian package of each program that the benchmark needs."""


def require_programs(*programs: str) -> None:
    """Exit if a program is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        sys.exit(
            f"{' and '.join(missing)} not found: apt-get install {' '.join(DEBIAN_PACKAGES[name] for name in missing)}"
        )


MODELS = {"tiny": (128, 64), "slow": (3000, 3000, 3000)}
"""Units of the hidden layers of each model. The slow model takes about 5 ms for ten rows, on one core."""

JSON, CSV, JSON_LINES, NPY = "application/json", "text/csv", "application/jsonlines", "application/x-npy"


@dataclass(frozen=True)
class Load:
    """One kind of request."""

    name: str
    content_type: str
    rows: Sequence[Sequence[float]]
    body: bytes
    path: str = "/invocations"
    headers: Mapping[str, str] = field(default_factory=dict)


def make_load(name: str, content_type: str, count: int) -> Load:
    """Return a kind of request whose body has `count` random rows."""
    random = np.random.default_rng(1).normal(size=(count, FEATURES)).round(4)
    rows, npy = random.tolist(), io.BytesIO()
    np.save(npy, random.astype(np.float32))
    bodies = {
        JSON: json.dumps({"instances": rows}).encode(),
        CSV: "".join(",".join(map(str, row)) + "\n" for row in rows).encode(),
        JSON_LINES: "".join(json.dumps(row) + "\n" for row in rows).encode(),
        NPY: npy.getvalue(),
    }
    return Load(name, content_type, rows, bodies[content_type])


def make_bundle(folder: Path, hidden_units: Sequence[int] = MODELS["tiny"]) -> Path:
    """Write a bundle whose model is a multilayer perceptron with random weights; return its folder."""
    random, sizes = np.random.default_rng(0), (FEATURES, *hidden_units, 1)
    nodes, weights, tensor_name = [], [], "features"
    for layer, (width, height) in enumerate(itertools.pairwise(sizes)):
        is_last = layer == len(sizes) - 2
        matrix = (random.normal(size=(width, height)) / np.sqrt(width)).astype(np.float32)
        weights += [numpy_helper.from_array(matrix, f"w{layer}")]
        weights += [numpy_helper.from_array(np.zeros(height, np.float32), f"b{layer}")]
        nodes.append(
            helper.make_node(
                "Gemm", [tensor_name, f"w{layer}", f"b{layer}"], ["predictions" if is_last else f"h{layer}"]
            )
        )
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"h{layer}"], [tensor_name := f"r{layer}"]))
    input_and_output = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        for name, width in (("features", FEATURES), ("predictions", 1))
    ]
    graph = helper.make_graph(nodes, "mlp", input_and_output[:1], input_and_output[1:], weights)
    folder.mkdir(parents=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / MODEL_FILE)
    write_manifest(folder, Manifest(framework="onnx", features=FEATURES))
    return folder


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    pid: int
    startup_seconds: float
    """Seconds from the start to the first response with status 200 to /ping."""
    can_pause: bool = True
    """Whether the server can be paused. A server that cannot be paused should use no CPU without requests."""
    adapt: Callable[[Load], Load | None] = lambda load: load
    """A function that returns the request in a format of this server, or None if the server does not support the
    request."""


@dataclass(frozen=True)
class Workspace:
    """A folder for the servers' files, the stack that stops the servers, and the name of the model."""

    folder: Path
    stack: ExitStack
    model: str = "tiny"

    @property
    def root(self) -> Path:
        """The contract's root for the model: its folder `model` contains the bundle."""
        return self.folder / f"root-{self.model}"

    def create_environment(self, lock: str, interpreter: str = "3.11") -> Path:
        """Create a virtual environment with the packages of a lock, once; return its interpreter."""
        uv = shutil.which("uv") or sys.exit("uv is not installed: run make setup")
        python = self.folder / lock / "bin" / "python"
        if python.exists():
            return python
        subprocess.run([uv, "venv", "--quiet", "--python", interpreter, self.folder / lock], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "--require-hashes", "-r"]
        our_locks = (REPOSITORY / "shared" / "requirements.lock", REPOSITORY / "containers" / "serve" / "cpu.lock")
        for path in our_locks if lock == "ours" else (PEERS / f"{lock}.lock",):
            subprocess.run([*map(str, install), str(path)], check=True)
        return python

    def make_variables(self) -> dict[str, str]:
        """Return the environment variables of a peer."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(PEERS),
            "MODEL": str(self.root / "model" / MODEL_FILE),
            "BATCH_REQUESTS": "1" if self.model == "tiny" else "8",
        }

    def run_model(self, seconds: int) -> float:
        """Return the number of requests per second that the model alone could answer, with full batches."""
        script = [str(self.create_environment("ours")), str(PEERS / "model_alone.py"), str(seconds)]
        command = ["taskset", "--cpu-list", SERVER_CORE, *script]
        return float(subprocess.run(command, env=self.make_variables(), capture_output=True, check=True).stdout)

    def start(
        self, name: str, command: Sequence[str | Path], port: int, ping: str = "/ping", **variables: str
    ) -> Server:
        """Start a server and wait until it responds."""
        environment = self.make_variables() | variables
        log = self.stack.enter_context((self.folder / f"{name}.log".replace(" ", "-")).open("wb"))
        start_time = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "--cpu-list", SERVER_CORE, *map(str, command)],
            env=environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.stack.callback(stop_server, process)
        wait_for(f"http://127.0.0.1:{port}{ping}", process, Path(log.name))
        return Server(name, port, process.pid, time.perf_counter() - start_time)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and all its child processes."""
    send_signal(process.pid, signal.SIGCONT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.perf_counter() + 20
    while process.poll() is None or list_session_members(process.pid):
        if time.perf_counter() > deadline:
            send_signal(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def send_signal(session: int, signal_number: signal.Signals) -> None:
    """Send a signal to all processes of a server."""
    for pid in list_session_members(session):
        with suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def list_session_members(session: int) -> list[int]:
    """Return the process IDs of a server, whose processes have a session of their own."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, _group, its_session, *_ = stat.read_text().rpartition(")")[2].split()
            if its_session == str(session) and state != "Z":
                members.append(int(stat.parent.name))
    return members


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.005)
    sys.exit(f"{url} does not respond:\n{log.read_text(errors='replace')[-2000:]}")


def find_free_port() -> int:
    """Return a free port below 32767, because multi-model-server rejects higher ports."""
    for port in range(18080, 32000):
        if port not in _assigned_ports:
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _assigned_ports.add(port)
                return port
    sys.exit("no port between 18080 and 32000 is free")


_assigned_ports: set[int] = set()


def start_ours(workspace: Workspace) -> Server:
    """Start this project's server as its image does: the same packages and entry point, and one worker."""
    port, python = find_free_port(), workspace.create_environment("ours")
    return workspace.start(
        "microjobs serve",
        [python, "-m", "microjobs", "serve"],
        port,
        PYTHONPATH=str(REPOSITORY / "shared"),
        MICROJOBS_JOB=str(REPOSITORY / "containers" / "serve"),
        SAGEMAKER_BASE_DIR=str(workspace.root),
        SAGEMAKER_BIND_TO_PORT=str(port),
        SAGEMAKER_MODEL_SERVER_WORKERS="1",
    )


def start_static(workspace: Workspace) -> Server:
    return start_granian(workspace, "static WSGI response", workspace.create_environment("static"), "static_app:app")


def start_bare(workspace: Workspace) -> Server:
    """Start a server with our packages but without our code, to measure only the HTTP parser and the model."""
    return start_granian(workspace, "bare WSGI, no checks", workspace.create_environment("ours"), "bare_app:app")


def start_granian(workspace: Workspace, name: str, python: Path, application: str) -> Server:
    port = find_free_port()
    options = ["--interface", "wsgi", "--port", str(port), "--http", "1", "--no-ws", "--blocking-threads", "1"]
    return workspace.start(name, [python, "-m", "granian", *options, application], port)


def start_fastapi(workspace: Workspace) -> Server:
    port, python = find_free_port(), workspace.create_environment("fastapi")
    options = ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    return workspace.start("FastAPI + uvicorn", [python, "-m", "uvicorn", *options, "fastapi_app:app"], port)


def start_flask(workspace: Workspace) -> Server:
    """Start gunicorn on a socket behind nginx, as AWS's sample does."""
    port, python = find_free_port(), workspace.create_environment("flask")
    socket_file, config = workspace.folder / "gunicorn.sock", workspace.folder / "nginx.conf"
    config.write_text(
        f"daemon off; user {getpass.getuser()}; worker_processes 1; error_log stderr;\n"
        f"pid {workspace.folder}/nginx.pid;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; client_max_body_size 100m;\n"
        f" client_body_temp_path {workspace.folder}/nginx-body; proxy_temp_path {workspace.folder}/nginx-proxy;\n"
        f" upstream gunicorn {{ server unix:{socket_file}; }}\n"
        f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://gunicorn; }} }} }}\n"
    )
    gunicorn = f"{python} -m gunicorn -k sync -w 1 -t 300 -b unix:{socket_file} flask_app:app"
    script = f"nginx -e stderr -c {config} & exec {gunicorn}"
    return workspace.start("Flask + gunicorn + nginx", ["sh", "-c", script], port)


def start_mms(workspace: Workspace) -> Server:
    """Start the model server of AWS's own inference images, without their fixed paths."""
    port, python = find_free_port(), workspace.create_environment("mms")
    archive = workspace.folder / "mms-models" / "model"
    for name in ("MAR-INF", "code"):
        (archive / name).mkdir(parents=True, exist_ok=True)
    (archive / "code" / "inference.py").write_bytes((PEERS / "mms_inference.py").read_bytes())
    model_entry = {"modelName": "model", "handler": "sagemaker_inference.default_handler_service"}
    (archive / "MAR-INF" / "MANIFEST.json").write_text(
        json.dumps(
            {"runtime": "python", "modelServerVersion": "1.0", "specificationVersion": "1.0", "model": model_entry}
        )
    )
    settings = workspace.folder / "mms.properties"
    settings.write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{find_free_port()}\n"
        "default_workers_per_model=1\ndecode_input_request=false\n"
    )
    (workspace.folder / ".model_server.pid").unlink(missing_ok=True)  # the previous server does not remove it
    start = "from mms.model_server import start; start()"
    options = ["--start", "--foreground", "--mms-config", settings, "--model-store", archive.parent]
    server = workspace.start(
        "sagemaker-inference + MMS",
        [python, "-c", start, *map(str, options), "--models", "model=model"],
        port,
        PATH=f"{python.parent}:{os.environ['PATH']}",
        PYTHONPATH=f"{archive / 'code'}:{PEERS}",
        TMPDIR=str(workspace.folder),
    )
    return replace(server, adapt=lambda load: None if load.content_type == JSON_LINES else load)
