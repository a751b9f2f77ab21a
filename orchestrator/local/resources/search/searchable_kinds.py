"""The kinds of resources that Search can find, and the structures of its results, from botocore's model.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SearchRecord.html
"""

from collections.abc import Mapping
from dataclasses import dataclass

from botocore.model import StructureShape

from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.protocols.models import load_service_model


@dataclass(frozen=True)
class SearchableKind:
    """A kind that Search can find."""

    kind: Kind
    shape: StructureShape
    """The members of a resource in the results, which are also the properties of filters."""
    inner_member: str = ""
    """The member between the noun and the members of `shape`, as in `{"Model": {"Model": {...}}}`; empty if there is
    none, as in `{"TrainingJob": {...}}`."""

    def strip_inner_member(self, name: str) -> str:
        """Return a property's name without the prefix for `inner_member`: `Model.ModelName` becomes `ModelName`."""
        return name.removeprefix(f"{self.inner_member}.") if self.inner_member else name

    def wrap(self, members: Mapping[str, object]) -> dict[str, object]:
        """Return a result with the members of a resource."""
        return {self.kind.noun: {self.inner_member: members} if self.inner_member else members}


RESOURCE_NAMES = {"Trial": "ExperimentTrial", "TrialComponent": "ExperimentTrialComponent"}
"""AWS's names of the resources in requests, if they differ from the noun of the kind."""


def _find_searchable_kinds() -> dict[str, SearchableKind]:
    kinds_by_name = {}
    record = load_service_model("sagemaker").shape_for("SearchRecord")
    assert isinstance(record, StructureShape)  # noqa: S101  botocore's model is fixed
    for kind in load_kinds():
        shape = record.members.get(kind.noun)
        if isinstance(shape, StructureShape):
            kinds_by_name[RESOURCE_NAMES.get(kind.noun, kind.noun)] = _make_searchable_kind(kind, shape)
    return kinds_by_name


def _make_searchable_kind(kind: Kind, shape: StructureShape) -> SearchableKind:
    inner_shape = shape.members.get(kind.noun)  # a result for a model has the model as one of its members
    return (
        SearchableKind(kind, inner_shape, kind.noun)
        if isinstance(inner_shape, StructureShape)
        else SearchableKind(kind, shape)
    )


SEARCHABLE_KINDS: Mapping[str, SearchableKind] = _find_searchable_kinds()
"""The kinds that this server has, by AWS's name of the resource."""
