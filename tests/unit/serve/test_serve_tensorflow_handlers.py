"""A user's handlers around a SavedModel, by the convention of AWS's image for TensorFlow inference."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microjobs.errors import UserError
from microjobs.hosting.responses import HttpError
from microjobs_train_tensorflow.serving.model import TensorFlowModel
from microjobs_train_tensorflow.serving.rest_api import RestApi
from microjobs_train_tensorflow.serving.rest_server import RestServer
from tests.unit.serve.saved_models import make_fake_models
from tests.unit.serve.test_serve_tensorflow import call_rest_api, invoke

pytestmark = pytest.mark.usefixtures("clean_imports")

INPUT_AND_OUTPUT_HANDLERS = """
import json

def input_handler(data, context):
    assert context.request_content_type == "text/plain" and context.content_length == 5, context
    return json.dumps({"instances": [[float(n) for n in data.read().decode().split()]]})

def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.json()["error"])
    return response.content.decode().upper(), context.accept_header
"""

PROGRAM_WITH_HANDLER = """
import requests

def handler(data, context):
    response = requests.post(context.rest_uri, data=data, timeout=30)
    return response.content, "application/x-" + context.custom_attributes.partition("=")[2]
"""


MakeHandlerModel = Callable[[str], TensorFlowModel]


@pytest.fixture
def make_handler_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeHandlerModel]:
    """A function that makes a model with a program. Its argument is the text of the program.

    After the test, the servers of the models are closed.
    """
    servers: list[RestServer] = []

    def start(api: RestApi) -> RestServer:
        servers.append(RestServer(api))
        return servers[-1]

    def make(text: str) -> TensorFlowModel:
        program = tmp_path / "handlers.py"
        program.write_text(text)
        return TensorFlowModel(make_fake_models(), "sum", program)

    monkeypatch.setattr("microjobs_train_tensorflow.serving.model.RestServer", start)
    threads = set(threading.enumerate())
    yield make
    for server in servers:
        server.close()
    assert "rest" not in [thread.name for thread in set(threading.enumerate()) - threads]


def test_input_and_output_handlers_surround_the_model(make_handler_model: MakeHandlerModel) -> None:
    model = make_handler_model(INPUT_AND_OUTPUT_HANDLERS)
    response = invoke(model, "1 2 3", "text/plain", "text/plain")
    assert (response.body, response.headers) == (b'{"PREDICTIONS":[[60.0]]}', [("content-type", "text/plain")])
    assert call_rest_api(model, "POST", "/v1/models/sum:predict", "[]")[0] == 400, "the REST API bypasses the handlers"
    with pytest.raises(
        HttpError, match=r"the model's own code failed: ValueError: input 'x' has shape \(1, 2\)"
    ) as caught:
        invoke(model, "1  2 ", "text/plain")
    assert caught.value.status == 500


def test_handler_reaches_the_rest_api_at_its_address(make_handler_model: MakeHandlerModel) -> None:
    model = make_handler_model(PROGRAM_WITH_HANDLER)
    response = invoke(model, '{"instances": [[1, 2, 3]]}', attributes="tfs-model-version=2")
    assert (response.body, response.headers) == (b'{"predictions":[[12.0]]}', [("content-type", "application/x-2")])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def handler(data, context): return {}, 'text/plain'", "a handler returned dict: return text or bytes"),
        ("def handler(data, context): return context.channel", "no gRPC interface: send requests to context.rest_uri"),
        ("def handler(data, context): raise SystemExit(1)", "SystemExit: 1"),
        ("def handler(data, context): return b'', 'a\\nb'", "is not valid in a header"),
    ],
)
def test_failing_handler_causes_status_500(make_handler_model: MakeHandlerModel, text: str, reason: str) -> None:
    with pytest.raises(HttpError) as caught:
        invoke(make_handler_model(text), "[]")
    assert caught.value.status == 500
    assert reason in str(caught.value)


def test_handler_gets_the_default_content_type(make_handler_model: MakeHandlerModel) -> None:
    model = make_handler_model("def handler(data, context): return context.request_content_type, 'text/plain'")
    assert invoke(model, "[]").body == b"application/json"


def test_input_handler_without_output_handler_is_an_error(make_handler_model: MakeHandlerModel) -> None:
    with pytest.raises(UserError, match="defines input_handler without output_handler: define both, or handler"):
        make_handler_model("def input_handler(data, context): return data")
