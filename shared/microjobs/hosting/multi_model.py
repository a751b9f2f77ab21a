"""The `/models` API of a container of a multi-model endpoint.

One worker process holds the table of models. Bundles are loaded into this process, and its threads run them at the same
time. A model with a user's program, or a model of a framework, gets a process of its own (`model_process`).
https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

import base64
import binascii
import contextlib
import json
import tempfile
import urllib.parse
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from microjobs.contract import Layout
from microjobs.errors import UserError

from .memory import MemoryBudget, release_free_memory
from .model_process import ModelProcess
from .model_source import FindModelSource, ModelSource
from .model_table import HostedModel, ModelTable
from .responses import HttpError, HttpResponse, ResponseStream, make_stream_response, quote
from .service import INVOCATIONS, Invocation, Model
from .user_requirements import RestartNeededError

ROUTE_PREFIX = "/models"
INVOKE_SUFFIX = "/invoke"
PAGE_SIZE = 100
QUEUE_SIZE = 256
"""Maximum number of requests that wait or run in the server. Further requests get status 503."""
THREADS = 32
"""Number of requests that run at the same time. Some of them load models, which may take minutes."""
JSON_HEADERS = [("content-type", "application/json")]


def make_multi_model_source(
    find_model_source: FindModelSource, layout: Layout, environ: Mapping[str, str], cleanup: ExitStack
) -> ModelSource:
    """Return the source of a `MultiModel`, which answers the `/models` API and loads the models that requests name.

    Args:
        find_model_source: function that finds the source of each model; see `server.serve`.

    Raises:
        UserError: the memory limit is invalid.
    """
    work_folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="models-")))
    opener = ModelOpener(find_model_source, environ, MemoryBudget.read(environ), work_folder)
    return ModelSource(
        lambda: MultiModel(ModelTable(opener.open), layout),
        loads_in_background=False,
        labels={"models": "multiple"},
        queue_size=QUEUE_SIZE,
        route_prefix=ROUTE_PREFIX,
        threads=THREADS,
        max_workers=1,
    )


class MultiModel:
    """Answers the requests of the `/models` API; see `service.Model`.

    Args:
        layout: folders of the container, in which the server finds the models that it loads.
    """

    is_fast = False
    has_routes = True
    batch_model = None

    def __init__(self, table: ModelTable, layout: Layout) -> None:
        self._table = table
        self._layout = layout

    def invoke(self, invocation: Invocation) -> HttpResponse:
        """Answer one request.

        Raises:
            HttpError: the request is invalid, or its model is not loaded.
        """
        method, path = invocation.method, invocation.path
        if path == ROUTE_PREFIX:
            return self._answer_collection(method, invocation)
        if path.startswith(f"{ROUTE_PREFIX}/"):
            relative_path = path.removeprefix(f"{ROUTE_PREFIX}/")
            name = relative_path.removesuffix(INVOKE_SUFFIX)
            is_invocation = name != relative_path
            if is_invocation and method == "POST":
                return self._invoke_model(name, invocation._replace(path=INVOCATIONS))
            if name and not is_invocation:
                return self._answer_model(method, name)
        raise HttpError(
            404, f"{method} {path} is not found: invoke a model with POST {ROUTE_PREFIX}/NAME{INVOKE_SUFFIX}"
        )

    def _invoke_model(self, name: str, invocation: Invocation) -> HttpResponse:
        with ExitStack() as stack:
            response = stack.enter_context(self._table.use(name)).invoke(invocation)
            if response.stream is None:
                return response
            parts = _read_parts(response.stream.parts, stack.pop_all())
            return make_stream_response(ResponseStream(parts, response.stream.make_head))

    def _answer_collection(self, method: str, invocation: Invocation) -> HttpResponse:
        if method == "POST":
            return self._load(invocation.body)
        if method == "GET":
            return _make_json_response(self._list(invocation.query))
        raise _make_method_error(method, ROUTE_PREFIX, "GET, POST")

    def _answer_model(self, method: str, name: str) -> HttpResponse:
        if method == "GET":
            return _make_json_response(_describe(name, self._table.find_url(name)))
        if method == "DELETE":
            self._table.unload(name)
            return _make_json_response({"status": f"model {quote(name)} is unloaded"})
        raise _make_method_error(method, f"{ROUTE_PREFIX}/{name}", "GET, DELETE")

    def _load(self, body: bytes) -> HttpResponse:
        name, url = _parse_load_request(body)
        folder = self._layout.resolve_local_path(url)
        if not folder.is_absolute() or not folder.is_dir():
            raise HttpError(400, f"url {quote(url)} is not a folder: send the folder of the extracted model")
        self._table.load(name, url, folder)
        return _make_json_response({"status": f"model {quote(name)} is loaded"})

    def _list(self, query: str) -> dict[str, object]:
        """Return one page of the models. The token of the next page is the last name of this page."""
        token = dict(urllib.parse.parse_qsl(query)).get("next_page_token", "")
        remaining_models = [item for item in self._table.list_urls() if not token or item[0] > _decode_token(token)]
        page = remaining_models[:PAGE_SIZE]
        content: dict[str, object] = {"models": [_describe(name, url) for name, url in page]}
        if len(remaining_models) > PAGE_SIZE:
            content["nextPageToken"] = base64.urlsafe_b64encode(page[-1][0].encode()).decode()
        return content


class ModelOpener:
    """Loads one model at each call of `open`.

    Args:
        work_folder: folder for temporary files of the models.
    """

    def __init__(
        self, find_model_source: FindModelSource, environ: Mapping[str, str], budget: MemoryBudget, work_folder: Path
    ) -> None:
        self._find_model_source = find_model_source
        self._environ = environ
        self._budget = budget
        self._work_folder = work_folder

    def open(self, folder: Path) -> HostedModel:
        """Load the model in a folder; see `model_table.OpenModel`."""
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="", dir=self._work_folder)))
            (root / "model").symlink_to(folder)
            with self._budget.reserve(folder):
                model = stack.enter_context(contextlib.closing(self._open(root, stack)))
            return _OwnedModel(model, stack.pop_all())

    def _open(self, root: Path, stack: ExitStack) -> HostedModel:
        with ExitStack() as source_cleanup:
            try:
                source = self._find_model_source(Layout(root), self._environ, source_cleanup)
                # only models with a user's program and models of frameworks load in the background
                if not source.loads_in_background:
                    stack.enter_context(source_cleanup.pop_all())
                    return _LocalModel(source.load())
            except RestartNeededError:  # the model has requirements of its own
                pass
            except UserError as error:
                raise HttpError(400, f"the model cannot be loaded: {error}") from error
        return ModelProcess(root, self._environ)


class _LocalModel:
    """A model in this process."""

    def __init__(self, model: Model) -> None:
        self._model: Model | None = model

    def invoke(self, invocation: Invocation) -> HttpResponse:
        if (model := self._model) is None:
            raise HttpError(404, "the model is not loaded any more: load it again")
        return model.invoke(invocation)

    def close(self) -> None:
        self._model = None
        release_free_memory()


class _OwnedModel:
    """A model with the resources that `close` frees."""

    def __init__(self, model: HostedModel, resources: ExitStack) -> None:
        self.invoke = model.invoke
        self.close = resources.close


def _read_parts(parts: Generator[bytes, None, None], resources: ExitStack) -> Generator[bytes, None, None]:
    """Yield the parts, and then free the resources that they need."""
    with resources, contextlib.closing(parts):
        yield from parts


def _parse_load_request(body: bytes) -> tuple[str, str]:
    """Return the name and the URL of the model to load."""
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    name, url = content.get("model_name"), content.get("url")
    if not (isinstance(name, str) and name and isinstance(url, str) and url):
        raise HttpError(400, 'the body names no model: send {"model_name": "…", "url": "folder of the model"}')
    return name, url


def _decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, ValueError):
        raise HttpError(400, f"next_page_token {quote(token)} is invalid: send the nextPageToken of a page") from None


def _describe(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}


def _make_json_response(content: object) -> HttpResponse:
    return HttpResponse(200, JSON_HEADERS, json.dumps(content).encode())


def _make_method_error(method: str, path: str, allowed: str) -> HttpError:
    return HttpError(405, f"{method} {path} is not supported: send {allowed}", allow=allowed)
