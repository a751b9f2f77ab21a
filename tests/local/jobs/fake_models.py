"""The `/models` API of the fake runtime's containers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class ModelsBehaviour:
    """The behaviour of the `/models` API of an image, and the actions of its containers. Tests change the behaviour."""

    capacity: int = 1000
    """The maximum number of models in a container. A full container answers 507 to requests to load a model."""
    load_status: int = 200
    """The status of responses to requests to load a model. If it is not 200, containers load no model."""
    is_broken: Callable[[str], bool] = lambda _: False
    """A function that returns whether a container cannot load the model with this content."""
    before_load: Callable[[str], None] = lambda _: None
    """A function that is called with the content of each model before the model is loaded."""
    before_invoke: Callable[[str], None] = lambda _: None
    """A function that is called with the content of the model before each response."""
    actions: list[str] = field(default_factory=list)
    """The actions of the containers: `load A`, `unload A` or `full A` for the model with the content A."""
    targets: list[str | None] = field(default_factory=list)
    """The target model in the header of each request; None without this header."""


class ContainerModels:
    """The models of one container. The model with the content A answers `A:` and the body of the request."""

    def __init__(self, behaviour: ModelsBehaviour) -> None:
        self.behaviour = behaviour
        self.contents_by_folder: dict[str, str] = {}
        """The contents of the folders in the container, by path."""
        self.loaded_models: dict[str, tuple[str, str]] = {}
        """The URL and the content of each loaded model, by name."""
        self.page_size = 2
        self._lock = threading.Lock()

    def add_folder(self, source: Path, path: str) -> None:
        self.contents_by_folder[path] = "".join(
            file.read_text() for file in sorted(source.rglob("*")) if file.is_file()
        )

    def remove_folder(self, path: str) -> None:
        self.contents_by_folder = {
            folder: text for folder, text in self.contents_by_folder.items() if not folder.startswith(path)
        }

    def answer(self, method: str, path: str, body: bytes, target: str | None) -> tuple[int, bytes]:
        """Return the status and the body of the response to a request."""
        self.behaviour.targets.append(target)
        path, _, token = path.partition("?next_page_token=")
        if path == "/models":
            return self._load(json.loads(body)) if method == "POST" else self._list(token)
        name = path.removeprefix("/models/").removesuffix("/invoke")
        if name not in self.loaded_models:
            return 404, b"no such model"
        content = self.loaded_models[name][1]
        if method == "DELETE":
            self._unload(name)
        elif method == "POST":
            self.behaviour.before_invoke(content)
        return 200, content.encode() + b":" + body

    def _load(self, request: dict[str, str]) -> tuple[int, bytes]:
        name, content = request["model_name"], self.contents_by_folder.get(request["url"])
        if content is None:
            return 400, b"no such folder"
        self.behaviour.before_load(content)
        with self._lock:
            if self.behaviour.load_status != 200 or self.behaviour.is_broken(content):
                return self.behaviour.load_status if self.behaviour.load_status != 200 else 500, b"cannot load it"
            if name in self.loaded_models:
                return 409, b"loaded already"
            if len(self.loaded_models) >= self.behaviour.capacity:
                self.behaviour.actions.append(f"full {content}")
                return 507, b"no memory"
            self.loaded_models[name] = (request["url"], content)
            self.behaviour.actions.append(f"load {content}")
        return 200, b"{}"

    def _unload(self, name: str) -> None:
        with self._lock:
            _, content = self.loaded_models.pop(name)
            self.behaviour.actions.append(f"unload {content}")

    def _list(self, token: str) -> tuple[int, bytes]:
        begin = int(token or 0)
        names = sorted(self.loaded_models)
        page = names[begin : begin + self.page_size]
        models = [{"modelName": name, "modelUrl": self.loaded_models[name][0]} for name in page]
        next_page = {"nextPageToken": str(begin + self.page_size)} if begin + self.page_size < len(names) else {}
        return 200, json.dumps({"models": models, **next_page}).encode()


@contextmanager
def block_calls(behaviour: ModelsBehaviour, function_name: str) -> Iterator[threading.Event]:
    """Let calls of `before_load` or `before_invoke` return only after the with statement. Yield an event that is set
    when a call has begun."""
    begun, released = threading.Event(), threading.Event()

    def block(_: str) -> None:
        begun.set()
        released.wait()

    setattr(behaviour, function_name, block)
    try:
        yield begun
    finally:
        setattr(behaviour, function_name, lambda _: None)
        released.set()
