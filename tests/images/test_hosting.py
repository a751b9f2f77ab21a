"""The trainers' images serve users' models in the formats of TensorFlow and PyTorch."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.images.conftest import Job, RunPython, StartJob
from tests.images.test_every_image import answers_ping
from tests.unit.serve.test_serve_code import write_files

pytestmark = pytest.mark.engine

IN_IMAGE = Path(__file__).parent / "in_image"

SEND_PROGRAM = """
import base64, json, sys, urllib.error, urllib.request
path, body, headers = json.loads(sys.argv[1])
request = urllib.request.Request("http://127.0.0.1:8080" + path, base64.b64decode(body) if body else None, headers)
try:
    response = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    response = error
print(json.dumps([response.status, response.headers["content-type"], base64.b64encode(response.read()).decode()]))
"""


def send(job: Job, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, bytes]:
    """Send a request from inside the container; return the status, the content type and the body of the response."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    arguments = json.dumps([path, base64.b64encode(body).decode(), fields])
    code, output = job.execute("/opt/venv/bin/python", "-I", "-c", SEND_PROGRAM, arguments)
    assert code == 0, output
    status, content_type, content = json.loads(output)
    return status, content_type, base64.b64decode(content)


def invoke(job: Job, body: bytes | str, content_type: str, **headers: str) -> tuple[int, str, bytes]:
    content = body.encode() if isinstance(body, str) else body
    return send(job, "/invocations", content, Content_Type=content_type, **headers)


def start_server(start_job: StartJob, image: str, root: Path, **environment: str) -> Job:
    variables = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", **environment}
    job = start_job(image, ["serve"], root, environment=variables, network_mode="none")
    job.wait_until(lambda: answers_ping(job), "200 on /ping", timeout=120)
    return job


def read_error(response: tuple[int, str, bytes]) -> tuple[int, Any]:
    return response[0], json.loads(response[2])["error"]


def test_torchscript_archive_is_served_without_code(root: Path, run_python: RunPython, start_job: StartJob) -> None:
    run_python("train-pytorch", IN_IMAGE / "save_pytorch_models.py", root)
    job = start_server(start_job, "train-pytorch", root)
    assert invoke(job, "[[1, 2, 3], [0, 0, 1]]", "application/json") == (200, "application/json", b"[[14.5], [3.5]]")
    assert invoke(job, "1,2,3\n0,0,1\n", "text/csv", Accept="text/csv") == (200, "text/csv", b"14.5\n3.5\n")
    assert invoke(job, "[1, 2, 3]\n", "application/jsonlines")[2] == b"[[14.5]]"
    assert read_error(invoke(job, "[[1, 2]]", "application/json")) == (
        500,
        "the model failed: mat1 and mat2 shapes cannot be multiplied (1x2 and 3x1)",
    )
    assert read_error(invoke(job, '["a"]', "application/json"))[0] == 400


STATE_DICT_PROGRAM = """
import os
import torch

def model_fn(model_dir):
    network = torch.nn.Linear(3, 1)
    network.load_state_dict(torch.load(os.path.join(model_dir, "weights.pth"), weights_only=True))
    return network

def predict_fn(data, model, context):
    assert data.dtype == torch.float32
    with torch.no_grad():
        return model(data) * float(context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes"))
"""


def test_state_dict_is_served_with_code(root: Path, run_python: RunPython, start_job: StartJob) -> None:
    run_python("train-pytorch", IN_IMAGE / "save_pytorch_models.py", root)
    (root / "model" / "model.pt").unlink()
    write_files(root / "model" / "code", {"mine.py": STATE_DICT_PROGRAM})
    job = start_server(start_job, "train-pytorch", root, SAGEMAKER_PROGRAM="mine.py")
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "2"}
    assert invoke(job, "[[1, 2, 3]]", "application/json", **attributes) == (200, "application/json", b"[[29.0]]")


TENSORFLOW_PROGRAM = """
import requests

def input_handler(data, context):
    assert requests.get(context.rest_uri.removesuffix(":predict"), timeout=30).ok
    return '{"instances": [[' + data.read().decode() + "]]}"

def output_handler(response, context):
    return str(response.json()["predictions"][0][0]), "text/plain"
"""


def test_savedmodel_is_served_as_by_tensorflow_serving(root: Path, run_python: RunPython, start_job: StartJob) -> None:
    run_python("train-tensorflow", IN_IMAGE / "save_tensorflow_models.py", root)
    job = start_server(start_job, "train-tensorflow", root)
    row = '{"instances": [[1, 2, 3]]}'
    assert invoke(job, row, "application/json") == (200, "application/json", b'{"predictions":[[12.0]]}')
    assert invoke(job, "1,2,3", "text/csv", Accept="text/csv") == (200, "text/csv", b"12.0\n")
    version = {"X-Amzn-SageMaker-Custom-Attributes": "tfs-model-name=Servo,tfs-model-version=1"}
    assert invoke(job, row, "application/json", **version)[2] == b'{"predictions":[[6.0]]}'
    named = b'{"signature_name": "named", "inputs": {"x": [[1, 2, 3]], "word": ["a"]}}'
    assert send(job, "/v1/models/Servo:predict", named)[2] == b'{"outputs":{"upper":["A"],"y":[6.0]}}'
    metadata = json.loads(send(job, "/v1/models/Servo/metadata")[2])
    assert metadata["model_spec"]["version"] == "2"
    signature = metadata["metadata"]["signature_def"]["signature_def"]["named"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["tensor_shape"]["dim"][1] == {"size": "3", "name": ""}
    status, message = read_error(send(job, "/v1/models/Servo:predict", named.replace(b"[1, 2, 3]", b"[1, 2, -3]")))
    assert status == 400
    assert "x has a value that is not positive" in message


def test_tensorflow_handlers_convert_request_and_response(
    root: Path, run_python: RunPython, start_job: StartJob
) -> None:
    run_python("train-tensorflow", IN_IMAGE / "save_tensorflow_models.py", root)
    write_files(root / "model" / "code", {"inference.py": TENSORFLOW_PROGRAM})
    job = start_server(start_job, "train-tensorflow", root)
    assert invoke(job, "1, 2, 3", "text/plain") == (200, "text/plain", b"12.0")
