"""The Create requests of a resource, and of the resources that it consists of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import StructureShape

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.protocols.models import load_operation_model
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.state import Record, State

SERVICE = "sagemaker"
CONFIG_MEMBER = "EndpointConfigName"


@dataclass(frozen=True)
class CreateRequest:
    """A request that creates a resource."""

    kind: Kind
    members: Mapping[str, Any]
    """The members without the idempotency token. With the same token, a repeated request creates no new resource."""

    @property
    def operation(self) -> str:
        return self.kind.operations["Create"]

    @property
    def shape(self) -> StructureShape:
        return _get_input_shape(self.kind)

    @property
    def idempotency_members(self) -> list[str]:
        """The names of the members with idempotency tokens. Their values must be new in each request."""
        return _list_idempotency_members(self.kind)


CHANGING_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "endpoint": (CONFIG_MEMBER,),
    "pipeline": ("PipelineDefinition", "PipelineDescription", "RoleArn"),
}
"""Members that Update operations change. The stored request has the old values of these members, and Describe returns
their current values."""


class CreateRequests:
    """Finds the requests that created a resource.

    Args:
        state: all resources.
        operations: SageMaker's operations.
    """

    def __init__(self, state: State, operations: Service) -> None:
        self._state, self._operations = state, operations
        self._kinds = {kind.arn_type: kind for kind in load_kinds()}

    def find(self, arn: str) -> list[CreateRequest]:
        """Return the requests in the order in which clients send them. The last request creates the resource with the
        ARN.

        Raises:
            ServiceError: the resource does not exist, or no request created it.
        """
        record = self._state.get_by_arn(arn)
        if record is None or record.kind not in self._kinds or not record.request:
            message = f"there is no request that created the resource {arn!r:.200}"
            raise ServiceError("ResourceNotFoundException", message)
        return list(self._make_requests(record))

    def _make_requests(self, record: Record) -> Iterator[CreateRequest]:
        """Yield the request that created a resource.

        Before the request for an endpoint, yield the requests for its configuration, and before these, the requests for
        the models. Configurations and models that were deleted are left out.
        """
        request = self._make_request(record)
        if record.kind == "endpoint" and (config := self._state.get("endpoint-config", request.members[CONFIG_MEMBER])):
            yield from self._make_requests(config)
        if record.kind == "endpoint-config":
            models = [self._state.get("model", name) for name in _list_models(record.request)]
            yield from (self._make_request(model) for model in models if model)
        yield request

    def _make_request(self, record: Record) -> CreateRequest:
        """Return a request without its idempotency token, and without the copies of other resources that the stored
        request may contain."""
        kind = self._kinds[record.kind]
        names = _get_input_shape(kind).members.keys() - set(_list_idempotency_members(kind))
        members = {name: value for name, value in record.request.items() if name in names}
        if changing_members := CHANGING_MEMBERS.get(record.kind):
            response: Any = self._operations[kind.operations["Describe"]]({kind.name_member: record.name})
            members |= {name: response[name] for name in changing_members if name in response}
        return CreateRequest(kind, members)


def _list_models(config: Mapping[str, Any]) -> list[str]:
    """Return the names of an endpoint configuration's models."""
    variants = (*config.get("ProductionVariants", ()), *config.get("ShadowProductionVariants", ()))
    return list(dict.fromkeys(variant["ModelName"] for variant in variants if "ModelName" in variant))


def _list_idempotency_members(kind: Kind) -> list[str]:
    return list(load_operation_model(SERVICE, kind.operations["Create"]).idempotent_members)


def _get_input_shape(kind: Kind) -> StructureShape:
    shape = load_operation_model(SERVICE, kind.operations["Create"]).input_shape
    if shape is None:
        raise TypeError(f"{kind.operations['Create']} has no members")
    return shape
