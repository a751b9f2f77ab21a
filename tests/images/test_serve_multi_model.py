"""The image serve as the container of a multi-model endpoint."""

import json
from pathlib import Path

import pytest

from microjobs.contract import DEFAULT_ROOT
from tests.bundles import write_large_bundle, write_linear_bundle
from tests.images.conftest import Job, StartJob
from tests.unit.serve.test_serve_code import write_files

pytestmark = pytest.mark.engine

PORT = 8123
SEND_PROGRAM = """
import json, sys, urllib.error, urllib.request
method, url, body = json.loads(sys.argv[1])
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
try:
    response = urllib.request.urlopen(request, timeout=60)
except OSError as error:
    response = error
print(json.dumps([getattr(response, "status", 0), response.read().decode() if hasattr(response, "read") else ""]))
"""


def send(job: Job, method: str, path: str, body: str = "") -> tuple[int, str]:
    """Send a request from inside the container; the status is 0 if the server does not listen."""
    arguments = json.dumps([method, f"http://127.0.0.1:{PORT}{path}", body])
    code, output = job.execute("/opt/venv/bin/python", "-I", "-c", SEND_PROGRAM, arguments)
    assert code == 0, output
    status, content = json.loads(output)
    return status, content


def load(job: Job, name: str, folder: str = "") -> int:
    url = f"{DEFAULT_ROOT}/models/{folder or name}/model"
    return send(job, "POST", "/models", json.dumps({"model_name": name, "url": url}))[0]


def start(start_job: StartJob, root: Path, **options: object) -> Job:
    variables = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(PORT)}
    job = start_job("serve", ["serve"], root, environment=variables, network_mode="none", **options)
    job.wait_until(lambda: send(job, "GET", "/ping")[0] == 200, "200 on /ping", timeout=60)
    return job


def test_models_of_each_type_are_loaded_and_unloaded(root: Path, start_job: StartJob) -> None:
    write_linear_bundle(root / "models" / "sum" / "model", [1.0, 1.0, 1.0], 0.0)
    program = "def model_fn(d): return 7\ndef transform_fn(m, b, c, a): return f'{m} {b}', 'text/plain'\n"
    write_files(root / "models" / "code" / "model" / "code", {"inference.py": program})
    job = start(start_job, root)
    assert [load(job, name) for name in ("sum", "code", "sum", "absent")] == [200, 200, 409, 400]
    assert send(job, "POST", "/models/sum/invoke", "[[1, 2, 3]]") == (200, '{"predictions":[[6.0]]}')
    assert send(job, "POST", "/models/code/invoke", "[1]") == (200, "7 [1]")
    assert send(job, "DELETE", "/models/code")[0] == 200
    names = [model["modelName"] for model in json.loads(send(job, "GET", "/models")[1])["models"]]
    assert names == ["sum"]
    job.stop(timeout=30)
    assert job.wait().exit_code == 0


def test_model_beyond_the_memory_limit_is_refused_with_507(root: Path, start_job: StartJob) -> None:
    write_large_bundle(root / "models" / "large" / "model", 100)
    job = start(start_job, root, mem_limit="500m", memswap_limit="500m")
    statuses = [load(job, "m0", "large")]
    while statuses[-1] == 200:
        statuses.append(load(job, f"m{len(statuses)}", "large"))
    assert (statuses[-1], 2 <= len(statuses) <= 5) == (507, True), statuses
    assert send(job, "DELETE", "/models/m0")[0] == 200
    assert load(job, "next", "large") == 200
