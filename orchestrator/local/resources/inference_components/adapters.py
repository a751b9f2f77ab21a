"""Adapters: inference components without containers. The copies of the base component load the adapter.

The container must have the API of SageMaker's hosting standards: `POST /adapters` with a name and a folder, `DELETE
/adapters/<name>`, and the header `X-Amzn-SageMaker-Adapter-Identifier` of invocations.
Source: https://github.com/aws/model-hosting-container-standards
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote

from microjobs.contract import DEFAULT_ROOT
from microjobs_orchestrator.local.resources.endpoints.container_replica import ContainerReplica
from microjobs_orchestrator.local.resources.endpoints.exchanges import InferenceRequest, InvocationTarget
from microjobs_orchestrator.local.resources.endpoints.replica import Replica
from microjobs_orchestrator.local.resources.endpoints.streams import ResponseStream
from microjobs_orchestrator.local.resources.endpoints.traffic import Traffic
from microjobs_orchestrator.local.resources.models.client import NoResponseError, ResponseHead
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host
from microjobs_orchestrator.local.tasks import call_in_thread

ADAPTERS_PATH = "/adapters"
"""The path of the API with which a container loads adapters."""
ADAPTERS_FOLDER = f"{DEFAULT_ROOT}/adapters"
"""The folder of the adapters' files in a container."""
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
LOAD_TIMEOUT = 60.0
"""Seconds for a container to load or to remove an adapter."""
ABANDON_CHECK_INTERVAL = 0.5
"""Seconds between two checks whether `abandon` was called, while a start waits for the base component."""
MAX_ANSWER_BYTES = 1 << 16
MAX_ERROR_CHARACTERS = 500


class BaseComponent(Protocol):
    """The component whose copies load the adapter."""

    is_in_service: threading.Event

    def choose_replica(self, target: InvocationTarget) -> Replica | None: ...

    def list_copies(self) -> Sequence[Replica]: ...


class AdapterReplica:
    """An adapter in all copies of its base component. A copy that was started again loads the adapter when a request
    arrives.

    Args:
        find_base: returns the base component; None if it does not run.
        make_folder: makes a new folder with the files of the adapter.
        note: writes a sentence to the logs of the server and of the component.
    """

    def __init__(
        self,
        name: str,
        plan_name: str,
        instance_id: str,
        find_base: Callable[[], BaseComponent | None],
        make_folder: Callable[[], Path],
        note: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.plan_name, self.instance_id, self.note = plan_name, instance_id, note
        self.variant = ""
        self.traffic = Traffic(on_change)
        self.is_serving = True
        self._name = name
        self._find_base = find_base
        self._make_folder = make_folder
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._start_counts_at_load: dict[str, int] = {}
        """The `start_count` of each copy when it loaded the adapter, by the plan name of the copy. A copy whose
        `start_count` is larger now was started again, and has lost the adapter."""

    def start(self, hosts: Sequence[Host] = ()) -> None:  # noqa: ARG002  the hosts belong to the base component
        for copy in self._wait_for_base().list_copies():
            self.variant = copy.variant
            try:
                self._load(copy)
            except NoResponseError as error:
                raise CannotRunError(f"the base component did not answer POST {ADAPTERS_PATH}: {error}") from error

    def _wait_for_base(self) -> BaseComponent:
        while (base := self._find_base()) is not None:
            if base.is_in_service.wait(ABANDON_CHECK_INTERVAL):
                return base
            if self._stopped.is_set():
                raise StoppedError
        raise CannotRunError("the base component does not run")

    def _load(self, copy: Replica) -> None:
        """Load the adapter into a copy that has not loaded it since its last start.

        Raise CannotRunError if the container refuses the adapter, and NoResponseError if the container does not answer.
        """
        if not isinstance(copy, ContainerReplica):
            raise CannotRunError("the base component is an adapter itself: name a component with a container")
        with self._lock:
            start_count = copy.start_count
            if self._start_counts_at_load.get(copy.plan_name) == start_count:
                return
            folder = f"{ADAPTERS_FOLDER}/{self._name}"
            copy.remove_folder(folder)
            copy.add_folder(self._make_folder(), folder)
            # An earlier server may have loaded the adapter: unload it first.
            self._send(copy, "DELETE", f"{ADAPTERS_PATH}/{quote(self._name, safe='')}")
            status, text = self._send(copy, "POST", ADAPTERS_PATH, {"name": self._name, "src": folder})
            if status >= HTTPStatus.MULTIPLE_CHOICES:
                raise CannotRunError(f"POST {ADAPTERS_PATH} answered {status}: {text[:MAX_ERROR_CHARACTERS]}")
            self._start_counts_at_load[copy.plan_name] = start_count

    def _send(
        self, copy: ContainerReplica, method: str, path: str, members: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Send a request to a copy. Return the status and the text of the response."""
        body = None if members is None else json.dumps(members).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        content = BytesIO()
        request = InferenceRequest(body, headers, LOAD_TIMEOUT, MAX_ANSWER_BYTES)
        response = copy.send(path, request, content, method=method)
        return response.status, content.getvalue().decode(errors="replace")

    def invoke(self, request: InferenceRequest, into: IO[bytes]) -> ResponseHead:
        with self.traffic.count_request(request.timeout):
            return call_in_thread(self._choose_copy).invoke(self._add_adapter_header(request), into)

    def stream(self, request: InferenceRequest) -> ResponseStream:
        return self._choose_copy().stream(self._add_adapter_header(request))

    def _choose_copy(self) -> Replica:
        """Choose a copy of the base component, let it load the adapter unless it has done so, and return the copy.

        Raise NoResponseError if the base component has no copy, or if the copy cannot load the adapter.
        """
        base = self._find_base()
        if base is None or (copy := base.choose_replica(InvocationTarget())) is None:
            raise NoResponseError("the base component has no copies", was_sent=False)
        try:
            self._load(copy)
        except CannotRunError as error:
            raise NoResponseError(f"the adapter cannot be loaded: {error}", was_sent=False) from error
        return copy

    def _add_adapter_header(self, request: InferenceRequest) -> InferenceRequest:
        return replace(request, headers={**request.headers, ADAPTER_HEADER: self._name}, target=InvocationTarget())

    def abandon(self) -> None:
        self._stopped.set()

    def stop(self, grace: float) -> None:  # noqa: ARG002  no host ends
        """Remove the adapter from the copies that have loaded it."""
        self._stopped.set()
        base = self._find_base()
        for copy in base.list_copies() if base is not None else ():
            if (
                isinstance(copy, ContainerReplica)
                and self._start_counts_at_load.get(copy.plan_name) == copy.start_count
            ):
                self._unload(copy)

    def _unload(self, copy: ContainerReplica) -> None:
        try:
            status, text = self._send(copy, "DELETE", f"{ADAPTERS_PATH}/{quote(self._name, safe='')}")
            if status >= HTTPStatus.MULTIPLE_CHOICES:
                self.note(f"DELETE {ADAPTERS_PATH}/{self._name} answered {status}: {text[:MAX_ERROR_CHARACTERS]}")
            copy.remove_folder(f"{ADAPTERS_FOLDER}/{self._name}")
        except (NoResponseError, CannotRunError) as error:
            self.note(f"the adapter was not removed from a copy: {error}")
