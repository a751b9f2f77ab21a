"""Behaviour that all kinds of resources share. The kinds are discovered, so new families are tested, too."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.event_settings import EventTarget
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.event_recorder import EventRecorder
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL
from microjobs_orchestrator.local.resources.inference_components.kinds import INFERENCE_COMPONENT
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.operations import (
    Handler,
    Operations,
    get_runnable_makers_by_kind,
    load_operations,
)
from microjobs_orchestrator.local.services.sagemaker import SageMaker
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeRuntime, ImageBehaviour
from tests.local.resources.examples import find_example, make_identifier, make_required_members
from tests.local.security.families import BASE_MEMBERS, COMPONENT_CONFIG
from tests.local.security.hosting_requests import IMAGE
from tests.polling import wait_until

KINDS = load_kinds()
RUNNING_KINDS = [kind for kind in KINDS if kind.lifecycle]
TARGET = EventTarget(file="events.jsonl")
TAGS = [{"Key": "k", "Value": "v"}]
TEMPLATE_IMAGE = "microjobs/serve:dev"
"""The image of jobs that `scripts/new_resource.py` generates."""

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.arn_type)
every_named_kind = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.parent is None], ids=lambda kind: kind.arn_type
)
"""Kinds with a parent have their own tests, because the server chooses the names of their resources."""
every_running_kind = pytest.mark.parametrize(
    "kind", [kind for kind in RUNNING_KINDS if kind.parent is None], ids=lambda kind: kind.arn_type
)


class Server:
    """The parts of a server that uses a home, with the operations on all kinds."""

    def __init__(self, home: Home) -> None:
        self.runtime = FakeRuntime()
        self.runtime.behaviours |= {IMAGE: ImageBehaviour(), TEMPLATE_IMAGE: ImageBehaviour()}
        self.parts = ServerParts.from_home(home, self.runtime)
        self._kind_operations = load_operations(self.parts.context, self.parts.registry)
        self.operations = SageMaker(self.parts.context, self._kind_operations).list_handlers()

    def record_events(self) -> None:
        """Record the EventBridge events of all later changes."""
        recorder = EventRecorder(self._kind_operations, [TARGET], region="us-east-1", notify=lambda: None)
        self.parts.context.state.record_events = recorder.record

    def take_events(self) -> Iterator[dict[str, Any]]:
        """Yield the recorded events, and remove them."""
        outbox = self.parts.context.state.outbox
        while stored_event := outbox.find_first(TARGET.key):
            yield json.loads(stored_event.content)
            outbox.remove(stored_event)

    def recover(self) -> None:
        self.parts.registry.recover(get_runnable_makers_by_kind(self._kind_operations))

    def call(self, kind: Kind, verb: str, **members: Any) -> dict[str, Any]:
        handler: Handler = self.operations[kind.operations[verb]]
        return dict(handler(members))

    def create(self, kind: Kind, name: str, **members: Any) -> dict[str, Any]:
        """Create a resource, after the resources that its request may name."""
        for required_kind in (MODEL, ENDPOINT_CONFIG):
            if required_kind is kind:
                break
            if self.parts.context.state.get(required_kind.arn_type, "a") is None:
                self._add(required_kind, "a")
        if kind is TRIAL and self.parts.context.state.get(EXPERIMENT.arn_type, "a") is None:
            self._add(EXPERIMENT, "a")
        if kind is INFERENCE_COMPONENT and self.parts.context.state.get(ENDPOINT.arn_type, "a") is None:
            self._add(ENDPOINT_CONFIG, "components", **COMPONENT_CONFIG)
            self._add(ENDPOINT, "a", EndpointConfigName="components")
        return self._add(kind, name, **members)

    def _add(self, kind: Kind, name: str, **members: Any) -> dict[str, Any]:
        request = BASE_MEMBERS.get(kind.operations["Create"]) or make_required_members(kind)
        return self.call(kind, "Create", **{**request, kind.name_member: name, **members})

    def read_status(self, kind: Kind, name: str) -> str:
        """Return the status of a resource, or an empty text if the resource does not exist."""
        record = self.parts.context.state.get(kind.arn_type, name)
        return record.status if record else ""

    def close(self) -> None:
        self.parts.close()
        self.runtime.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    new_home = Home(tmp_path / "home")
    new_home.create()
    new_home.credentials()
    (new_home.buckets / "fuzz" / "in").mkdir(parents=True)
    (new_home.buckets / "mlflow").mkdir()
    (new_home.buckets / "fuzz" / "in" / "a").write_text("1,2\n")
    return new_home


@pytest.fixture
def server(home: Home) -> Iterator[Server]:
    new_server = Server(home)
    yield new_server
    new_server.close()


@every_named_kind
def test_resource_is_described_listed_and_tagged(server: Server, kind: Kind) -> None:
    arn = server.create(kind, "one", Tags=TAGS)[kind.arn_member]
    assert arn.endswith(f":{kind.arn_type}/one")
    description = server.call(kind, "Describe", **make_identifier(kind, "one"))
    assert (description[kind.name_member], description[kind.arn_member]) == ("one", arn)
    summaries = server.call(kind, "List", NameContains="one")[kind.summaries_member]
    assert [item[kind.name_member] for item in summaries] == ["one"]
    assert server.operations["ListTags"]({"ResourceArn": arn})["Tags"] == TAGS
    server.operations["DeleteTags"]({"ResourceArn": arn, "TagKeys": ["k"]})
    assert server.operations["ListTags"]({"ResourceArn": arn})["Tags"] == []


@every_named_kind
def test_creation_has_an_event(server: Server, kind: Kind) -> None:
    server.record_events()
    arn = server.create(kind, "one", Tags=TAGS)[kind.arn_member]
    events = [event for event in server.take_events() if event["resources"] == [arn]]
    assert [event["detail-type"] for event in events[:1]] == ([kind.event_type] if kind.event_type else [])
    for event in events:
        assert (event["detail"][kind.name_member], event["detail"]["Tags"]) == ("one", {"k": "v"})
        assert event["detail"]["CreationTime"] > 1e12  # the time is in milliseconds


def test_endpoint_has_statuses_in_the_form_of_events(server: Server) -> None:
    server.record_events()
    server.create(ENDPOINT, "one")
    wait_until(lambda: server.read_status(ENDPOINT, "one") == "InService")
    server.call(ENDPOINT, "Delete", EndpointName="one")
    wait_until(lambda: not server.read_status(ENDPOINT, "one"))
    details = [event["detail"] for event in server.take_events() if event["detail-type"] == ENDPOINT.event_type]
    statuses = [detail["EndpointStatus"] for detail in details]
    assert statuses == ["CREATING", "IN_SERVICE", "DELETING"]


@every_named_kind
def test_event_that_cannot_be_made_does_not_prevent_the_change(
    server: Server, kind: Kind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.record_events()
    monkeypatch.setattr(Operations, "make_events", Mock(side_effect=KeyError("x")))
    server.create(kind, "one")
    assert server.call(kind, "Describe", **make_identifier(kind, "one"))[kind.name_member] == "one"
    assert "could not make the events about a change of" in caplog.text


@every_named_kind
def test_duplicate_name_is_refused(server: Server, kind: Kind) -> None:
    server.create(kind, "one")
    with pytest.raises(ServiceError, match="already exist"):
        # The tags make this request differ from the first one. An equal request, with the same token, may succeed.
        server.create(kind, "one", Tags=TAGS)


@every_named_kind
def test_list_has_pages(server: Server, kind: Kind) -> None:
    for number in range(3):
        server.create(kind, f"page-{number}")
    names: list[str] = []
    token: dict[str, str] = {}
    while len(names) < 3:
        page = server.call(
            kind, "List", NameContains="page-", SortBy="Name", SortOrder="Ascending", MaxResults=2, **token
        )
        names += [item[kind.name_member] for item in page[kind.summaries_member]]
        token = {"NextToken": page["NextToken"]} if "NextToken" in page else {}
    assert (names, token) == (["page-0", "page-1", "page-2"], {})


@every_kind
def test_missing_resource_is_refused(server: Server, kind: Kind) -> None:
    identifier = make_identifier(kind, "absent") if kind.parent is None else {kind.identifier_member: "absent"}
    for verb in ("Describe", *(verb for verb in kind.verbs if verb in ("Stop", "Delete"))):
        with pytest.raises(ServiceError, match=r"Could not find|does not exist"):
            server.call(kind, verb, **identifier)


@every_named_kind
def test_resource_is_stopped_and_deleted(server: Server, kind: Kind) -> None:
    server.create(kind, "one")
    if "Stop" in kind.verbs:
        assert kind.lifecycle is not None
        active_statuses = kind.lifecycle.active_statuses
        server.call(kind, "Stop", **make_identifier(kind, "one"))
        wait_until(lambda: server.read_status(kind, "one") not in active_statuses)
        assert server.read_status(kind, "one") == "Stopped"
        assert kind.lifecycle.end_member in {"", *server.call(kind, "Describe", **make_identifier(kind, "one"))}
    if "Delete" in kind.verbs:
        server.call(kind, "Delete", **make_identifier(kind, "one"))
        wait_until(lambda: server.parts.context.state.get(kind.arn_type, "one") is None)


@every_running_kind
def test_restarted_server_resumes_or_ends_every_resource(home: Home, server: Server, kind: Kind) -> None:
    """The new server finds no hosts: a running resource fails with a reason, or runs again and can be stopped."""
    assert kind.lifecycle is not None
    transitional_statuses = kind.lifecycle.transitional_statuses
    server.create(kind, "one")
    # The first server keeps running. It does not disturb the second server, because it changes nothing more after it
    # has started hosts or ended the resource.
    wait_until(lambda: server.runtime.hosts or server.read_status(kind, "one") not in transitional_statuses)
    second_server = Server(home)
    second_server.recover()
    wait_until(
        lambda: second_server.read_status(kind, "one") not in transitional_statuses or second_server.runtime.hosts
    )
    if "Stop" in kind.verbs and second_server.read_status(kind, "one") in transitional_statuses:
        with suppress(ValidationError):  # the resource may have ended after the check
            second_server.call(kind, "Stop", **make_identifier(kind, "one"))
    wait_until(lambda: second_server.read_status(kind, "one") not in transitional_statuses)
    description = second_server.call(kind, "Describe", **make_identifier(kind, "one"))
    assert description[kind.status_member] in (kind.lifecycle.success_status, "Stopped") or description["FailureReason"]
    second_server.close()


@every_kind
def test_operations_owned_kinds_and_statuses_of_a_kind_exist(kind: Kind) -> None:
    for operation in kind.operations.values():
        assert load_operation_model("sagemaker", operation).input_shape
    earlier_kinds = KINDS[: KINDS.index(kind)]
    assert {owned.arn_type for owned in kind.owns} <= {earlier.arn_type for earlier in earlier_kinds}
    if kind.lifecycle is not None:
        statuses = set(kind.lifecycle.statuses)
        assert {
            kind.lifecycle.first_status,
            kind.lifecycle.success_status,
            *kind.lifecycle.transitional_statuses,
            *kind.lifecycle.transitions,
        } <= statuses
        next_statuses = {status for values in kind.lifecycle.transitions.values() for status in values}
        assert next_statuses <= statuses


@every_kind
def test_kind_has_an_example_request(kind: Kind) -> None:
    """`test_both_runtimes` and the drill that kills the server send this request."""
    example = find_example(kind)
    assert set(example.required_kinds) <= set(KINDS)


def test_error_explains_where_to_add_a_missing_example() -> None:
    with pytest.raises(LookupError, match=r"kind greeting has no example request: add an Example .*/examples/"):
        find_example(Kind(arn_type="greeting", noun="Greeting", title="greeting"))
