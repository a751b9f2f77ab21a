"""The operations that kinds of resources have in common: Create, Describe, List, Stop and Delete.

The module `operations` of a family has one class per kind, derived from `Operations`. The class converts a request to a
record, makes the `Runnable`, whose thread runs the resource, and adds other operations of the kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from microjobs_orchestrator.local.errors import ResourceInUseError, ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind, Lifecycle, load_kinds, load_modules
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Registry, Runnable, RunnableMaker
from microjobs_orchestrator.local.resources.listing import describe_resource, list_resources
from microjobs_orchestrator.local.resources.state_changes import ResourceEvent, is_state_change, make_detail
from microjobs_orchestrator.local.state import NameTakenError, Owner, Record

Request = Mapping[str, Any]
Response = Mapping[str, Any]
Handler = Callable[[dict[str, Any]], Response]


def add_resource(
    context: Context,
    kind: Kind,
    request: Request,
    *,
    defaults: Mapping[str, Any] | None = None,
    members: Mapping[str, Any] | None = None,
    referenced_resources: Mapping[str, Any] | None = None,
    internal: Mapping[str, Any] | None = None,
    owner: Owner | None = None,
) -> Record:
    """Add the resource of a valid Create request. The description has the resource's ARN, its status, and all members
    of the request except Tags.

    Args:
        defaults: members of the description that the request may replace.
        members: members of the description that replace those of the request.
        referenced_resources: resources that the request names. They are stored with the request, because the originals
            may be deleted later.
        internal: the internal state.

    Raises:
        ServiceError: a resource with this kind and name exists.
    """
    name, status = request[kind.name_member], kind.lifecycle.first_status if kind.lifecycle else ""
    arn = format_arn(f"{kind.arn_type}/{name}", context.settings.region)
    request_members = {member: value for member, value in request.items() if member != "Tags"}
    description = {**(defaults or {}), **request_members, **(members or {}), kind.arn_member: arn}
    if status:
        description[kind.status_member] = status
    stored_request, tags = {**request, **(referenced_resources or {})}, request.get("Tags", [])
    try:
        return context.state.add(
            kind.arn_type, name, arn, status, stored_request, description, internal=internal, tags=tags, owner=owner
        )
    except NameTakenError as error:  # AWS has two messages: for kinds that can be stopped, and for other kinds
        if "Stop" in kind.verbs:
            message = f"{kind.display_name.capitalize()} names must be unique: {name} already exists."
            raise ResourceInUseError(message) from error
        raise ValidationError(f'Cannot create already existing {kind.display_name} "{arn}".') from error


def find_resource(context: Context, kind: Kind, name: str) -> Record:
    """Return the record of an existing resource.

    Raises:
        ValidationError: the resource does not exist. SDKs search the message for "Could not find".
    """
    record = context.state.get(kind.arn_type, name)
    if record is None:
        arn = format_arn(f"{kind.arn_type}/{name}", context.settings.region)
        raise ValidationError(f'Could not find {kind.display_name} "{arn}".')
    return record


class Operations:
    """The operations on the resources of one kind."""

    kind: ClassVar[Kind]
    other_event_kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of other records. `make_events` also returns the events of their changes."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self.context = context
        self.registry = registry

    # --- methods that a kind may replace ---

    def add(self, request: Request) -> Record:
        """Check a Create request that botocore's model accepts, and add the resource's record.

        Raises:
            ServiceError: the request is refused.
        """
        return add_resource(self.context, self.kind, request)

    def compute_members(self, record: Record) -> Mapping[str, Any]:  # noqa: ARG002  most kinds have none
        """Return the members of Describe and List that are not stored."""
        return {}

    def make_events(self, before: Record | None, after: Record | None) -> Iterable[ResourceEvent]:
        """Return the events of a change.

        Args:
            before: None if the resource is new.
            after: None if the resource is deleted.
        """
        record = after or before
        if record is None or self.kind.event_type is None or not is_state_change(self.kind, before, after):
            return ()
        tags = self.context.state.tags(record.arn)
        description = describe_resource(self.kind, record, self.compute_members(record))
        return [
            ResourceEvent(self.kind.event_type, [record.arn], make_detail(self.kind, before, after, description, tags))
        ]

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        """Return additional operations of the kind, by name."""
        return {}

    # --- common operations ---

    def list_handlers(self) -> dict[str, Handler]:
        """Return all operations on the kind, by name."""
        common_handlers = {name: getattr(self, verb.lower()) for verb, name in self.kind.operations.items()}
        return {**common_handlers, **self.list_additional_handlers()}

    def create(self, request: Request) -> Response:
        return {self.kind.arn_member: self.add(request).arn}

    def describe(self, request: Request) -> Response:
        record = self.find(request)
        return describe_resource(self.kind, record, self.compute_members(record))

    def list(self, request: Request) -> Response:
        return list_resources(self.context.state, self.kind, request, self.compute_members)

    def delete(self, request: Request) -> Response:
        record = self.find(request)
        self.context.state.delete(self.kind.arn_type, record.name, record.created)
        return {}

    def find(self, request: Request) -> Record:
        """Return the record of the resource that a request names, as `find_resource` does."""
        return find_resource(self.context, self.kind, request[self.kind.name_member])


class RunningOperations(Operations, ABC):
    """The operations on the resources of a kind that runs."""

    @property
    def lifecycle(self) -> Lifecycle:
        assert self.kind.lifecycle is not None  # noqa: S101  each kind that runs has a lifecycle
        return self.kind.lifecycle

    @abstractmethod
    def make_runnable(self, record: Record) -> Runnable:
        """Return the `Runnable` of a resource that is created, or that a restarted server recovers."""

    def make_stopping_members(self) -> Mapping[str, Any]:
        """Return the members of the description that change when the resource is stopped."""
        return {self.kind.status_member: "Stopping"}

    def create(self, request: Request) -> Response:
        record = self.add(request)
        self.registry.start(self.make_runnable(record))
        return {self.kind.arn_member: record.arn}

    def stop(self, request: Request) -> Response:
        record, statuses = self.find(request), self.lifecycle.transitional_statuses
        members = self.make_stopping_members()
        if not self.context.state.update(self.kind.arn_type, record.name, members, "Stopping", only_if=statuses):
            raise ValidationError(self._describe_refusal(self.find(request)))
        self.registry.stop(f"{self.kind.arn_type}/{record.name}")
        return {}

    def delete(self, request: Request) -> Response:
        record = self.find(request)
        if record.status in self.lifecycle.active_statuses:
            raise ValidationError(f"{self._describe_refusal(record)} Stop it first.")
        # Without this wait, the removal of the old job's containers could also remove the containers of a new job with
        # the same name.
        if not self.registry.wait_for_end(f"{self.kind.arn_type}/{record.name}"):
            raise ValidationError(f"The containers and files of {record.name} are still being removed: try again.")
        return super().delete(request)

    def _describe_refusal(self, record: Record) -> str:
        return f"The request was rejected because the {self.kind.display_name} is in status {record.status}."


def load_operations(context: Context, registry: Registry) -> list[Operations]:
    """Return the operations on all kinds, in the order in which a restarted server recovers the resources: each kind
    comes after the kinds that it owns."""
    values = [value for module in load_modules("operations") for value in vars(module).values()]
    classes = {value.kind: value for value in values if isinstance(value, type) and hasattr(value, "kind")}
    return [classes[kind](context, registry) for kind in load_kinds()]


def get_runnable_makers_by_kind(all_operations: Iterable[Operations]) -> dict[str, RunnableMaker]:
    """Return the functions that make the runnable of a record, by kind, in the order of recovery."""
    running_operations = [operations for operations in all_operations if isinstance(operations, RunningOperations)]
    return {operations.kind.arn_type: _make_runnable_maker(operations) for operations in running_operations}


def _make_runnable_maker(operations: RunningOperations) -> RunnableMaker:
    return lambda _, record: operations.make_runnable(record)
