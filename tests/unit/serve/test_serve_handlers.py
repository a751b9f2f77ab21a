"""A user's own code in the model folder, by the convention of sagemaker-inference."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.serve.conftest import Reply, Server, run_server


@contextmanager
def run_server_with_program(
    root: Path, program: str, name: str = "inference.py", **environment: str
) -> Iterator[Server]:
    """Run a server whose model folder contains this program."""
    code = root / "model" / "code"
    code.mkdir(exist_ok=True)
    (code / name).write_text(program)
    with run_server(root, **environment) as server:
        server.wait_until_ready()
        yield server


FOUR_FUNCTIONS_PROGRAM = """
import json
def model_fn(model_dir):
    return {"factor": 2}
def input_fn(body, content_type):
    return json.loads(body)["values"]
def predict_fn(data, model):
    return [value * model["factor"] for value in data]
def output_fn(prediction, accept):
    return json.dumps({"doubled": prediction})
"""


def test_four_functions_make_a_response(root: Path) -> None:
    with run_server_with_program(root, FOUR_FUNCTIONS_PROGRAM) as server:
        reply = server.invoke('{"values": [1, 2]}')
    assert (reply.json, reply.headers["content-type"]) == ({"doubled": [2, 4]}, "application/json")
    assert server.find_logged_problems() == []


def test_default_functions_load_and_run_a_bundle(root: Path) -> None:
    program = "def output_fn(prediction, accept):\n    return f'{accept}: {prediction[0][0]:.2f}', 'text/plain'\n"
    with run_server_with_program(root, program) as server:
        reply = server.invoke("1,2,3", "text/csv", Accept="text/plain")
        invalid_reply = server.invoke("1,2", "text/csv", Accept="text/plain")
    assert (reply.body, reply.headers["content-type"]) == (b"text/plain: 6.00", "text/plain")
    assert (invalid_reply.status, "(rows, 3)" in invalid_reply.error) == (400, True)


RESPONSES = {"application/json": b'{"predictions":[[6.0]]}', "text/csv": b"6.0\n", "application/jsonlines": b"[6.0]\n"}


def test_default_input_and_output_functions_serve_a_users_model(root: Path) -> None:
    program = "def model_fn(model_dir):\n    return lambda rows: rows.sum(axis=1)\n"
    with run_server_with_program(root, program) as server:
        replies = {accept: server.invoke("1,2,3", "text/csv", Accept=accept) for accept in RESPONSES}
        assert server.invoke("x", "text/csv").status == 400
        assert server.invoke("x", "image/png").status == 415
        assert server.invoke("1,2", "text/csv", Accept="image/png").status == 406
    assert {accept: reply.body for accept, reply in replies.items()} == RESPONSES


def test_transform_fn_makes_the_response(root: Path) -> None:
    program = "def transform_fn(model, body, content_type, accept):\n    return body[::-1], accept\n"
    with run_server_with_program(root, program) as server:
        reply = server.invoke(b"abc", "application/x-text", Accept="application/x-other")
    assert (reply.body, reply.headers["content-type"]) == (b"cba", "application/x-other")


def test_functions_with_one_more_parameter_get_the_context(root: Path) -> None:
    program = """
import os
def model_fn(model_dir, context):
    return model_dir == context.system_properties["model_dir"] and os.path.isdir(model_dir)
def transform_fn(model, body, content_type, accept, context):
    return f"{model} {context.get_request_header(0, 'Content-Type')} {bool(context.get_request_id())}"
"""
    with run_server_with_program(root, program) as server:
        assert server.invoke("x", "application/x-mine").body == b"True application/x-mine True"


@pytest.mark.parametrize("module", ["metrics", "main", "serve", "helper"])
def test_users_module_is_imported_instead_of_the_images_module(root: Path, module: str) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / f"{module}.py").write_text("WORD = 'from the user'\n")
    program = f"import {module}\ndef transform_fn(model, body, content_type, accept):\n    return {module}.WORD\n"
    with run_server_with_program(root, program) as server:
        assert server.invoke("x").body == b"from the user"
        assert server.request("GET", "/metrics").status == 200


def test_program_imports_modules_that_the_server_has_not_loaded(root: Path) -> None:
    program = "def transform_fn(model, body, content_type, accept):\n    import wave\n    return wave.__name__\n"
    with run_server_with_program(root, program) as server:
        assert server.invoke("x").body == b"wave"


def test_users_module_does_not_replace_a_dependency_of_flask(root: Path) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "click.py").write_text("raise ImportError('from the user')")  # Flask imports click
    with run_server_with_program(root, FOUR_FUNCTIONS_PROGRAM) as server:
        assert server.request("GET", "/metrics").status == 200  # Flask answers /metrics


def test_program_is_named_by_the_environment(root: Path) -> None:
    with run_server_with_program(root, FOUR_FUNCTIONS_PROGRAM, name="mine.py", SAGEMAKER_PROGRAM="mine.py") as server:
        assert server.invoke('{"values": [3]}').json == {"doubled": [6]}


def test_exception_causes_status_500_and_a_traceback_in_the_log(root: Path) -> None:
    program = "def predict_fn(data, model):\n    raise ValueError('no luck\\nsecond line')\n"
    with run_server_with_program(root, program) as server:
        reply = server.invoke("1,2,3", "text/csv")
        second_reply = server.invoke("1,2,3", "text/csv")
    assert (reply.status, second_reply.status) == (500, 500)
    assert reply.error == "the model's own code failed: ValueError: no luck"
    assert "Traceback" in server.log


def test_ping_gets_status_503_while_the_model_loads(root: Path) -> None:
    program = "import time\ndef model_fn(model_dir):\n    time.sleep(1.5)\n    return sum\n"
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(program)
    statuses: list[int] = []
    with run_server(root) as server:
        while 200 not in statuses:
            try:
                statuses.append(server.request("GET", "/ping").status)
                if statuses == [503]:  # the model needs 1.5 s to load
                    assert server.invoke("1").status == 503
            except ConnectionRefusedError:
                continue
    assert 503 in statuses


SLOW_PROGRAM = """
import time
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept):
    time.sleep(float(body))
    return "slept"
"""


def invoke_in_parallel(server: Server, bodies: list[str]) -> list[Reply]:
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda body=body: replies.append(server.invoke(body))) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


@pytest.mark.slow
def test_ping_answers_while_predictions_run(root: Path) -> None:
    with run_server_with_program(root, SLOW_PROGRAM) as server:
        thread = threading.Thread(target=invoke_in_parallel, args=(server, ["1"] * 3))
        thread.start()
        statuses = [server.request("GET", "/ping").status for _ in range(5)]
        assert thread.is_alive()
        thread.join()
    assert statuses == [200] * 5


def test_excess_requests_get_status_503(root: Path) -> None:
    with run_server_with_program(root, SLOW_PROGRAM) as server:
        replies = invoke_in_parallel(server, ["0.05"] * 80)
    assert sorted({reply.status for reply in replies}) == [200, 503]
    refused_replies = [reply for reply in replies if reply.status == 503]
    assert len(refused_replies) <= 48  # the queue of one worker holds 32 requests
    assert (refused_replies[0].headers["retry-after"], "fewer" in refused_replies[0].error) == ("1", True)


HOOKS_PROGRAM = """
calls = []
def pre_model_fn(model_dir):
    calls.append("pre_model_fn")
def model_fn(model_dir):
    calls.append("model_fn")
def model_warmup_fn(model_dir, model, context):
    calls.append("model_warmup_fn")
def transform_fn(model, body, content_type, accept):
    return calls
"""


def test_hooks_run_before_and_after_model_fn(root: Path) -> None:
    with run_server_with_program(root, HOOKS_PROGRAM) as server:
        assert server.invoke("x").json == ["pre_model_fn", "model_fn", "model_warmup_fn"]


CONTEXT_PROGRAM = """
from sagemaker_inference.errors import BaseInferenceToolkitError
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept, context):
    if body == "busy":
        raise BaseInferenceToolkitError(429, "come later", "Busy")
    if body == "break":
        return "x", "text/plain\\r\\nX-Evil: 1"
    context.set_response_status(202, "Accepted")
    context.set_response_header(0, "X-Mine", context.get_request_header(0, "x-theirs"))
    return body, "text/plain"
"""


def test_code_sets_statuses_and_headers(root: Path) -> None:
    with run_server_with_program(root, CONTEXT_PROGRAM) as server:
        valid_reply, busy_reply = server.invoke("x", X_Theirs="theirs"), server.invoke("busy")
        broken_reply = server.invoke("break")
        metrics = server.request("GET", "/metrics").body.decode()
    assert (valid_reply.status, valid_reply.headers["x-mine"], valid_reply.body) == (202, "theirs", b"x")
    assert (busy_reply.status, busy_reply.error) == (429, "come later")
    assert (broken_reply.status, "is not valid in a header" in broken_reply.error) == (500, True)
    for status in ("2xx", "4xx", "500"):
        assert f'serve_requests_total{{route="/invocations",status="{status}"}}' in metrics


def test_accept_with_a_control_character_gets_status_406(root: Path) -> None:
    with run_server_with_program(root, FOUR_FUNCTIONS_PROGRAM) as server:
        reply = server.invoke('{"values": []}', Accept="image/png,\tx")
    assert (reply.status, bool(reply.error)) == (406, True)


LABEL_PROGRAM = """
import numpy as np
class Model:
    def predict(self, rows):
        return np.array(["setosa", "virginica"])[(rows[:, 0] > 5).astype(int)]
def model_fn(model_dir):
    return Model()
"""
LABEL_RESPONSES = {
    "application/json": b'{"predictions": ["setosa", "virginica"]}',
    "text/csv": b"setosa\nvirginica\n",
    "application/jsonlines": b'"setosa"\n"virginica"\n',
}


def test_labels_are_encoded_in_each_format(root: Path) -> None:
    with run_server_with_program(root, LABEL_PROGRAM) as server:
        for accept, expected in LABEL_RESPONSES.items():
            for body, content_type in (("1,2\n6,7", "text/csv"), ("[[1,2],[6,7]]", "application/json")):
                reply = server.invoke(body, content_type, Accept=accept)
                assert (reply.status, reply.body, reply.headers["content-type"]) == (200, expected, accept)
    assert server.find_logged_problems() == []


MODEL_FN = "def model_fn(model_dir):\n    return 1\n"
PREDICT_FN = "def predict_fn(data, model):\n    return 1\n"
HANDLERS = "def input_handler(data, context):\n    pass\ndef output_handler(data, context):\n    pass\n"
MISNAMED_HANDLERS = HANDLERS.replace("_handler", "_of_mine")
UNUSABLE_PROGRAMS = {
    MODEL_FN
    + HANDLERS: "defines model_fn, and also input_handler and output_handler for TensorFlow Serving, which serve",
    HANDLERS: "(input_handler and output_handler are for TensorFlow Serving: the image train-tensorflow calls them)",
    MISNAMED_HANDLERS: "defines input_of_mine, output_of_mine, but serve calls only pre_model_fn",
    "x = 1": "defines no functions, but serve calls only pre_model_fn",
    "def modle_fn(model_dir):\n    return 1\n"
    + PREDICT_FN: "defines modle_fn, predict_fn. serve does not call modle_fn: did you mean model_fn? It",
    "def modle_fn(model_dir):\n    return 1\n": "(did you mean model_fn instead of modle_fn?)",
    MODEL_FN + "def Predict_fn(data, model):\n    return 1\n": "did you mean predict_fn",
    MODEL_FN + PREDICT_FN + "def ouput_fn(prediction, accept):\n    return 1\n": "did you mean output_fn",
    MODEL_FN + "def predict_fn(data):\n    return 1\n": "predict_fn takes (data): it must take (data, model)",
    MODEL_FN + "predict_fn = 'mine'": "predict_fn is str, not a function",
    MODEL_FN: "model_fn returned int, which has no predict(): define predict_fn",
    MODEL_FN + PREDICT_FN + "def pre_model_fn(model_dir):\n    raise OSError('no')\n": "OSError: no (in pre_model_fn)",
}


@pytest.mark.parametrize(("program", "reason"), UNUSABLE_PROGRAMS.items())
def test_error_explains_why_a_program_is_unusable(root: Path, program: str, reason: str) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(program)
    with run_server(root) as server:
        assert server.wait() == 2
    assert reason in (server.failure or "")


def test_failed_default_model_fn_is_reported(tmp_path: Path) -> None:
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").write_text(PREDICT_FN)
    with run_server(tmp_path) as server:
        assert server.wait() == 2
    assert "inference.py does not define model_fn, and the default failed: " in (server.failure or "")
    assert "has no model.onnx" in (server.failure or "")


HELPERS = (
    PREDICT_FN
    + "def my_predict_fn(data):\n    pass\ndef serving_input_fn():\n    pass\ndef get_model_fn():\n    pass\n"
    "def transform(data):\n    pass\n"
)


def test_helpers_with_similar_names_are_accepted(root: Path) -> None:
    with run_server_with_program(root, MODEL_FN + HELPERS) as server:
        assert server.invoke("[1]").json == 1


FILES_WITHOUT_MODEL = {
    "1/saved_model.pb": "It contains 1/; the image train-tensorflow serves SavedModels",
    "model.pth": "the image train-pytorch serves TorchScript archives",
    "model.joblib": "It contains model.joblib",
    "inference.py": "move inference.py into the folder code/",
    "code/serve.py": "code/ has serve.py: name the program inference.py",
}


@pytest.mark.parametrize(("file", "reason"), FILES_WITHOUT_MODEL.items())
def test_missing_model_error_names_the_files_in_the_folder(tmp_path: Path, file: str, reason: str) -> None:
    path = tmp_path / "model" / file
    path.parent.mkdir(parents=True)
    path.write_text("x")
    with run_server(tmp_path) as server:
        assert server.wait() == 2
    assert "has no model.onnx" in (server.failure or "")
    assert reason in (server.failure or "")


def test_program_can_be_named_without_its_suffix(root: Path) -> None:
    with run_server_with_program(root, FOUR_FUNCTIONS_PROGRAM, name="mine.py", SAGEMAKER_PROGRAM="mine") as server:
        assert server.invoke('{"values": [3]}').json == {"doubled": [6]}


def test_body_that_could_fill_the_memory_gets_status_400(root: Path) -> None:
    body = '["' + "x" * 100_000 + '"' + ', "y"' * 100_000 + "]"  # as an array of text, this body would need 40 GB
    with run_server_with_program(root, MODEL_FN + PREDICT_FN) as server:
        assert server.invoke(body).status == 400
        assert server.invoke(body[1:-1], "text/csv").status == 400
        assert server.invoke(",".join(["1.5", "2"] * 100_000), "text/csv").status == 400
        assert server.invoke("[1]").json == 1


FAILURES = {
    "import nonsense_module": "inference.py cannot be imported: ModuleNotFoundError",
    "def model_fn(model_dir):\n    raise OSError('no weights')": "could not load the model: OSError: no weights",
    FOUR_FUNCTIONS_PROGRAM
    + "def transform_fn(model, body, content_type, accept): pass": "has transform_fn and input_fn",
    "import sys\nsys.exit(2)": "the model's code called exit(2) while the model was loaded",
}


@pytest.mark.parametrize(("program", "reason"), FAILURES.items())
@pytest.mark.parametrize("workers", ["1", "3"])
def test_program_that_fails_at_start_ends_the_job(root: Path, program: str, reason: str, workers: str) -> None:
    (root / "model" / "code").mkdir()
    (root / "model" / "code" / "inference.py").write_text(program)
    with run_server(root, SAGEMAKER_MODEL_SERVER_WORKERS=workers) as server:
        assert server.wait() == 2
    assert (server.failure or "").count(reason) == 1  # the reason is reported once, and not again by each worker


def test_program_that_exits_on_a_request_causes_status_500(root: Path) -> None:
    program = "import sys\ndef model_fn(model_dir): return sys.exit\n"
    with run_server_with_program(root, program) as server:
        reply = server.invoke("[[1.0]]")
        assert (reply.status, reply.error.partition(":")[0]) == (500, "the model's own code failed")
        assert server.request("GET", "/ping").status == 200


def test_missing_program_ends_the_job(root: Path) -> None:
    with run_server(root, SAGEMAKER_PROGRAM="absent.py") as server:
        assert server.wait() == 2
    assert "'absent.py' is not in" in (server.failure or "")
