"""The operations that all kinds of resources have: Create, Describe, List, Stop and Delete.

The module `operations` of a family has a class for each kind, derived from `Operations`. The class says how a request
becomes a record, what runs for the record, and which operations the kind has beside the common ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.kinds import Kind, Life, all_kinds, load_modules
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.registry import Maker, Registry, Runnable
from microjobs_orchestrator.local.resources import listing
from microjobs_orchestrator.local.resources.records import add_resource, find_resource
from microjobs_orchestrator.local.state import Record

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Handler = Callable[[dict[str, Any]], Answer]


class Operations:
    """The operations on the resources of one kind."""

    kind: ClassVar[Kind]

    def __init__(self, context: Context, registry: Registry) -> None:
        self.context = context
        self.registry = registry

    # --- what a kind may replace ---

    def add(self, request: Request) -> Record:
        """Check a Create request that botocore's model accepts, and add the resource's record.

        Raises:
            ServiceError: the request is refused.
        """
        return add_resource(self.context, self.kind, request)

    def compute_members(self, record: Record) -> Mapping[str, Any]:  # noqa: ARG002  most kinds have none
        """Return members of Describe and List that are computed when they are asked for."""
        return {}

    def more(self) -> Mapping[str, Handler]:
        """Return the operations beside the common ones, by name."""
        return {}

    # --- common operations ---

    def handlers(self) -> dict[str, Handler]:
        """Return all operations on the kind, by name."""
        common = {name: getattr(self, verb.lower()) for verb, name in self.kind.operations.items()}
        return {**common, **self.more()}

    def create(self, request: Request) -> Answer:
        return {self.kind.arn_member: self.add(request).arn}

    def describe(self, request: Request) -> Answer:
        record = self.find(request)
        return listing.describe_resource(self.kind, record, self.compute_members(record))

    def list(self, request: Request) -> Answer:
        return listing.list_resources(self.context.state, self.kind, request, self.compute_members)

    def delete(self, request: Request) -> Answer:
        record = self.find(request)
        self.context.state.delete(self.kind.arn_type, record.name, record.created)
        return {}

    def find(self, request: Request) -> Record:
        """Return the record of the resource that a request names.

        Raises:
            ValidationError: no such resource exists.
        """
        return find_resource(self.context, self.kind, request[self.kind.name_member])


class RunningOperations(Operations, ABC):
    """The operations on the resources of a kind for which something runs."""

    @property
    def life(self) -> Life:
        assert self.kind.life is not None  # noqa: S101  as the class requires
        return self.kind.life

    @abstractmethod
    def make_runnable(self, record: Record) -> Runnable:
        """Return what runs for a resource, when it is created or when a server starts again."""

    def stopping_members(self) -> Mapping[str, Any]:
        """Return the members of the description that change when the resource is stopped."""
        return {self.kind.status_member: "Stopping"}

    def create(self, request: Request) -> Answer:
        record = self.add(request)
        self.registry.start(self.make_runnable(record))
        return {self.kind.arn_member: record.arn}

    def stop(self, request: Request) -> Answer:
        record, transitional = self.find(request), self.life.transitional
        members = self.stopping_members()
        if not self.context.state.update(self.kind.arn_type, record.name, members, "Stopping", only_if=transitional):
            status = self.find(request).status
            raise ValidationError(f"The request was rejected because the {self.kind.words} is in status {status}.")
        self.registry.stop(f"{self.kind.arn_type}/{record.name}")
        return {}

    def delete(self, request: Request) -> Answer:
        record = self.find(request)
        if record.status in self.life.active:
            raise ValidationError(
                f"The request was rejected because the {self.kind.words} is in status {record.status}: stop it first."
            )
        # Until then, a new job of this name would lose its containers to the old one's removal.
        if not self.registry.wait(f"{self.kind.arn_type}/{record.name}"):
            raise ValidationError(f"What {record.name} left is still being removed: try again.")
        return super().delete(request)


def load_operations(context: Context, registry: Registry) -> list[Operations]:
    """Return the operations on all kinds; owners come after what they own."""
    values = [value for module in load_modules("operations") for value in vars(module).values()]
    classes = {value.kind: value for value in values if isinstance(value, type) and hasattr(value, "kind")}
    return [classes[kind](context, registry) for kind in all_kinds()]


def list_makers(kinds: Iterable[Operations]) -> dict[str, Maker]:
    """Return the function that makes a runnable of a record, for each kind that runs, in the order of recovery."""
    return {kind.kind.arn_type: _maker(kind) for kind in kinds if isinstance(kind, RunningOperations)}


def _maker(kind: RunningOperations) -> Maker:
    return lambda _, record: kind.make_runnable(record)
