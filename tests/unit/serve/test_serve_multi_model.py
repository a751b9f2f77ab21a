"""The /models API of a container of a multi-model endpoint."""

import json
import os
import signal
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from microjobs.contract import DEFAULT_ROOT
from microjobs.hosting.memory import measure_process_tree_bytes
from tests.bundles import write_large_bundle, write_linear_bundle
from tests.polling import wait_until
from tests.unit.serve.conftest import FEATURE_COUNT, Reply, Server, run_server
from tests.unit.serve.test_serve_code import LOCAL_WHEELS_OPTIONS, PROGRAM_WITH_REQUIREMENT, write_files, write_wheel

MULTI_MODEL = {"SAGEMAKER_MULTI_MODEL": "true"}
ROW = '{"instances": [[1, 2, 3]]}'
MB = 1024 * 1024
GENERATED_REQUEST_COUNT = max(500, int(os.environ.get("FUZZ_REQUESTS", "0")))
SEED = int(os.environ.get("FUZZ_SEED", "20261129"))
"""The number of generated requests, and their seed."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A container of a multi-model endpoint. The folder `model`, for containers with one model, is empty, as on AWS."""
    with run_server(tmp_path, **MULTI_MODEL) as running_server:
        running_server.wait_until_ready()
        yield running_server


def write_bundle(server: Server, name: str, factor: float = 1.0) -> None:
    """Write the bundle that SageMaker would extract for a model. It predicts `factor` times the sum of the features."""
    write_linear_bundle(find_model_folder(server, name), [factor] * FEATURE_COUNT, 0.0)


def write_program(server: Server, name: str, program: str, **files: str) -> None:
    write_files(find_model_folder(server, name) / "code", {"inference.py": program, **files})


def find_model_folder(server: Server, name: str) -> Path:
    return server.layout.root / "models" / name / "model"


def load(server: Server, name: str, url: str | None = None) -> Reply:
    body = json.dumps({"model_name": name, "url": url or f"{DEFAULT_ROOT}/models/{name}/model"}).encode()
    return server.request("POST", "/models", body, Content_Type="application/json")


def invoke(server: Server, name: str, body: str = ROW, content_type: str = "application/json") -> Reply:
    return server.request("POST", f"/models/{name}/invoke", body.encode(), Content_Type=content_type)


def unload(server: Server, name: str) -> Reply:
    return server.request("DELETE", f"/models/{name}")


def list_names(server: Server) -> list[str]:
    return [model["modelName"] for model in server.request("GET", "/models").json["models"]]


def test_container_without_models_is_healthy(server: Server) -> None:
    assert server.request("GET", "/ping").status == 200
    assert server.request("GET", "/models").json == {"models": []}


def test_models_are_loaded_invoked_and_unloaded(server: Server) -> None:
    for name, factor in (("one", 1.0), ("two", 2.0)):
        write_bundle(server, name, factor)
        assert load(server, name).status == 200
    assert invoke(server, "one").json == {"predictions": [[6.0]]}
    assert invoke(server, "two", "1,2,3", "text/csv").body == b"12.0\n"
    description = {"modelName": "two", "modelUrl": f"{DEFAULT_ROOT}/models/two/model"}
    assert server.request("GET", "/models/two").json == description
    assert server.request("GET", "/models").json["models"][1] == description
    assert unload(server, "one").status == 200
    assert invoke(server, "one").status == 404
    assert list_names(server) == ["two"]
    assert invoke(server, "two").status == 200
    assert server.find_logged_problems() == []


def test_loaded_name_gets_status_409_and_the_model_stays(server: Server) -> None:
    write_bundle(server, "one")
    assert load(server, "one").status == 200
    reply = load(server, "one")
    assert (reply.status, "'one' is already loaded" in reply.error) == (409, True)
    assert invoke(server, "one").status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_unknown_model_gets_status_404(server: Server, method: str) -> None:
    reply = server.request(
        method, "/models/absent" + "/invoke" * (method == "POST"), b"1" if method == "POST" else None
    )
    assert (reply.status, reply.error) == (404, "model 'absent' is not loaded: load it with POST /models")


@pytest.mark.parametrize(
    "body",
    ["", "no JSON", "[]", '{"model_name": "a"}', '{"model_name": "a", "url": 1}', '{"model_name": "", "url": "/"}'],
)
def test_malformed_load_gets_status_400(server: Server, body: str) -> None:
    assert server.request("POST", "/models", body.encode()).status == 400
    assert list_names(server) == []


@pytest.mark.parametrize("url", [f"{DEFAULT_ROOT}/models/absent/model", "relative", "/dev/null"])
def test_error_names_a_url_that_is_no_folder(server: Server, url: str) -> None:
    assert repr(url) in load(server, "a", url).error


def test_folder_without_a_model_gets_status_400_and_can_be_loaded_later(server: Server) -> None:
    find_model_folder(server, "empty").mkdir(parents=True)
    reply = load(server, "empty")
    assert (reply.status, "has no model.onnx" in reply.error) == (400, True)
    write_bundle(server, "empty")
    assert load(server, "empty").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/models", 405),
        ("POST", "/models/a", 405),
        ("GET", "/models/a/invoke", 404),
        ("GET", "/modelsx", 404),
        ("POST", "/invocations", 404),
        ("GET", "/absent", 404),
        ("GET", "/metrics", 200),
    ],
)
def test_requests_other_than_loads_and_invocations_are_answered(
    server: Server, method: str, path: str, status: int
) -> None:
    reply = server.request(method, path, b"1" if method != "GET" else None)
    assert reply.status == status
    if status == 405:
        assert reply.headers["allow"]


def test_list_has_pages(server: Server) -> None:
    write_bundle(server, "shared")
    expected = [f"m{number:03}" for number in range(230)]
    with ThreadPoolExecutor(8) as executor:
        replies = list(executor.map(lambda name: load(server, name, f"{DEFAULT_ROOT}/models/shared/model"), expected))
    assert {reply.status for reply in replies} == {200}
    listed_names, sizes, path = [], [], "/models"
    while path:
        page = server.request("GET", path).json
        listed_names += [model["modelName"] for model in page["models"]]
        sizes.append(len(page["models"]))
        token = page.get("nextPageToken")
        path = token and f"/models?next_page_token={urllib.parse.quote(token)}"
    assert (listed_names, sizes) == (expected, [100, 100, 30])
    assert server.request("GET", "/models?next_page_token=%ff").status == 400


@pytest.mark.parametrize("name", ["a b", "x%2Fy", "größe.tar.gz", "a/b.tar.gz"])
def test_model_name_can_be_any_text(server: Server, name: str) -> None:
    write_bundle(server, "shared")
    assert load(server, name, f"{DEFAULT_ROOT}/models/shared/model").status == 200
    quoted = urllib.parse.quote(name, safe="/")
    assert invoke(server, quoted).status == 200
    assert server.request("GET", f"/models/{quoted}").json["modelName"] == name
    assert unload(server, quoted).status == 200


PROGRAM = """
from helper import WORD
def model_fn(model_dir):
    return model_dir
def transform_fn(model, body, content_type, accept, context):
    if body == "stop": __import__("os").kill(__import__("os").getpid(), 9)
    return WORD + body + (context.get_request_header(0, "X-Amzn-SageMaker-Target-Model") or ""), "text/plain"
"""


def test_programs_with_modules_of_the_same_name_do_not_mix(server: Server) -> None:
    for name in ("red", "blue"):
        write_program(server, name, PROGRAM, **{"helper.py": f"WORD = {name!r}"})
        assert load(server, name).status == 200
    for name in ("red", "blue"):
        reply = server.request(
            "POST", f"/models/{name}/invoke", b"1", Content_Type="text/csv", X_Amzn_SageMaker_Target_Model="target"
        )
        assert (reply.status, reply.body, reply.headers["content-type"]) == (
            200,
            f"{name}1target".encode(),
            "text/plain",
        )


@pytest.mark.slow
def test_model_may_have_requirements_of_its_own(server: Server) -> None:
    write_program(
        server, "words", PROGRAM_WITH_REQUIREMENT, **{"requirements.txt": f"{LOCAL_WHEELS_OPTIONS}tiny_words\n"}
    )
    write_wheel(find_model_folder(server, "words") / "code")
    assert load(server, "words").status == 200
    assert invoke(server, "words", "1", "text/csv").body == b"word 1.0"


def test_program_that_fails_causes_status_400_with_its_reason(server: Server) -> None:
    write_program(server, "bad", "def model_fn(model_dir):\n    raise ValueError('no weights')\n")
    reply = load(server, "bad")
    assert (reply.status, "no weights" in reply.error) == (400, True)
    assert list_names(server) == []


def test_program_that_is_killed_while_loading_causes_status_507(server: Server) -> None:
    write_program(
        server, "huge", "import os\ndef model_fn(model_dir):\n    os.kill(os.getppid(), 9)\n    os.kill(0, 9)\n"
    )
    assert load(server, "huge").status == 507


def test_unloaded_program_leaves_no_process(server: Server) -> None:
    write_program(server, "a", PROGRAM, **{"helper.py": "WORD = 'a'"})
    load(server, "a")
    (worker,) = server.list_worker_pids()
    assert len(list_descendants(worker)) >= 2
    assert unload(server, "a").status == 200
    assert list_descendants(worker) == []


def test_processes_end_with_a_killed_worker(server: Server) -> None:
    write_program(server, "a", PROGRAM, **{"helper.py": "WORD = 'a'"})
    load(server, "a")
    (worker,) = server.list_worker_pids()
    pids = list_descendants(worker)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    server.wait_until_ready()
    assert list_names(server) == [], "the new worker reports its own models, so that SageMaker loads them again"
    assert load(server, "a").status == 200


SLOW_PROGRAM = """
import time
def model_fn(model_dir):
    return 1
def transform_fn(model, body, content_type, accept):
    time.sleep({seconds})
    return "done", "text/plain"
"""


def test_unload_waits_for_invocations(server: Server) -> None:
    write_program(server, "slow", SLOW_PROGRAM.format(seconds=0.5))
    load(server, "slow")
    replies: list[Reply] = []
    client = threading.Thread(target=lambda: replies.append(invoke(server, "slow")))
    client.start()
    time.sleep(0.2)
    assert unload(server, "slow").status == 200
    client.join()
    assert [reply.body for reply in replies] == [b"done"]


@pytest.mark.slow
def test_slow_program_does_not_delay_other_models(server: Server) -> None:
    write_program(server, "slow", SLOW_PROGRAM.format(seconds=3))
    write_bundle(server, "fast")
    load(server, "slow"), load(server, "fast")
    client = threading.Thread(target=lambda: invoke(server, "slow"))
    client.start()
    assert invoke(server, "fast").status == 200
    assert client.is_alive()
    client.join()


@pytest.mark.slow
def test_models_beyond_the_memory_limit_get_status_507_until_one_is_unloaded(tmp_path: Path) -> None:
    with run_server(tmp_path, **MULTI_MODEL, MICROJOBS_SERVE_MEMORY_MB="400") as server:
        server.wait_until_ready()
        write_large_bundle(find_model_folder(server, "large"), 64, features=1024)
        loaded_names: list[str] = []
        while (reply := load(server, f"m{len(loaded_names)}", f"{DEFAULT_ROOT}/models/large/model")).status == 200:
            loaded_names.append(f"m{len(loaded_names)}")
        assert (reply.status, "unload another model" in reply.error) == (507, True)
        assert 2 <= len(loaded_names) <= 4
        assert list_names(server) == loaded_names
        assert unload(server, loaded_names[0]).status == 200
        assert load(server, "next", f"{DEFAULT_ROOT}/models/large/model").status == 200


@pytest.mark.slow
def test_unloading_frees_the_memory_of_a_bundle(server: Server) -> None:
    write_large_bundle(find_model_folder(server, "large"), 64, features=1024)
    (worker,) = server.list_worker_pids()
    sizes = []
    for _ in range(6):
        assert load(server, "large").status == 200
        loaded_bytes = measure_process_tree_bytes(worker)
        assert unload(server, "large").status == 200
        sizes.append(measure_process_tree_bytes(worker))
        assert loaded_bytes - sizes[-1] > 60 * MB
    assert max(sizes) - sizes[0] < 32 * MB


def test_loads_of_one_name_at_the_same_time_load_it_once(server: Server) -> None:
    write_bundle(server, "one")
    with ThreadPoolExecutor(8) as executor:
        statuses = sorted(executor.map(lambda _: load(server, "one").status, range(8)))
    assert statuses == [200] + [409] * 7


def test_malformed_memory_limit_ends_the_job(tmp_path: Path) -> None:
    with run_server(tmp_path, **MULTI_MODEL, MICROJOBS_SERVE_MEMORY_MB="1 GB") as server:
        assert server.wait() == 2
    assert "MICROJOBS_SERVE_MEMORY_MB is '1 GB'" in (server.failure or "")


def test_stopped_container_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    temporary_folder = Path(
        tempfile.mkdtemp()
    )  # the path is short, because the path of a Unix socket has at most 107 bytes
    with run_server(tmp_path, **MULTI_MODEL, TMPDIR=str(temporary_folder)) as server:
        server.wait_until_ready()
        write_program(server, "a", PROGRAM, **{"helper.py": "WORD = 'a'"})
        write_bundle(server, "b")
        assert {load(server, name).status for name in "ab"} == {200}
        pids = list_descendants(server.process.pid)
        assert server.stop() == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    temporary_folder.rmdir()  # this call fails if the server has left a file


def list_descendants(pid: int) -> list[int]:
    children = [
        int(text)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for text in (thread / "children").read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in list_descendants(child)]


REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH"]),
    st.one_of(
        st.sampled_from(["/models", "/models/", "/models/m", "/models/m/invoke", "/models//invoke", "/models/a/b"]),
        st.text(max_size=20).map(lambda text: f"/models/{urllib.parse.quote(text)}"),
        st.text(max_size=20).map(lambda text: f"/models?next_page_token={urllib.parse.quote(text)}"),
    ),
    st.one_of(
        st.binary(max_size=50),
        st.sampled_from([b"", ROW.encode(), b"[" * 5000]),
        st.builds(
            lambda name, url: json.dumps({"model_name": name, "url": url}).encode(),
            st.one_of(st.just("m"), st.text(max_size=10), st.integers()),
            st.one_of(st.just(f"{DEFAULT_ROOT}/models/m/model"), st.text(max_size=20), st.none()),
        ),
    ),
)


def test_generated_requests_get_an_answer_and_never_a_server_error(server: Server) -> None:
    write_bundle(server, "m")
    statuses: set[int] = set()

    @settings(
        max_examples=GENERATED_REQUEST_COUNT,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS)
    def send(request: tuple[str, str, bytes]) -> None:
        reply = server.request(*request)
        statuses.add(reply.status)
        assert reply.status in (200, 400, 404, 405, 409), (request, reply)
        assert reply.status == 200 or reply.error

    seed(SEED)(send)()
    assert {200, 400, 404, 405} <= statuses
    assert server.find_logged_problems() == []
