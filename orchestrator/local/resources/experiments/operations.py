"""The operations on experiments, experiment trials and trial components.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateExperiment.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrial.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrialComponent.html
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.descriptions import select_response_members
from microjobs_orchestrator.local.resources.experiments import associations, component_metrics, job_trial_components
from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from microjobs_orchestrator.local.resources.listing import describe_as
from microjobs_orchestrator.local.resources.operations import Handler, Operations, Request, Response, add_resource
from microjobs_orchestrator.local.state import Owner, Query, Record

DICTIONARY_MEMBERS = ("Parameters", "InputArtifacts", "OutputArtifacts")
"""Members of components that are dictionaries: an update adds, replaces or removes single keys."""


class _ExperimentOperations(Operations):
    """The operations that the three kinds have in common. A name in a request may be an ARN. Responses contain the
    ARN."""

    def find(self, request: Request) -> Record:
        return associations.find_record(self.context, self.kind.arn_type, request[self.kind.name_member])

    def add(self, request: Request) -> Record:
        return self._add_with_owner(request, None)

    def _add_with_owner(self, request: Request, owner: Owner | None) -> Record:
        name = request[self.kind.name_member]
        if self.context.state.get(self.kind.arn_type, name) is not None:  # SDKs search the message for "already exists"
            raise ValidationError(f"{self.kind.noun} names must be unique: {name} already exists.")
        members = select_response_members(f"Describe{self.kind.noun}", request)
        return add_resource(
            self.context, self.kind, request, defaults={"DisplayName": name}, members=members, owner=owner
        )

    def list(self, request: Request) -> Response:
        begin, end = request.get("CreatedAfter", float("-inf")), request.get("CreatedBefore", float("inf"))
        selected_records = (record for record in self.select(request) if begin <= record.created <= end)
        sorts_by_name = request.get("SortBy", "CreationTime") == "Name"
        records = sorted(
            selected_records,
            key=lambda record: ("" if sorts_by_name else record.created, record.name),
            reverse=request.get("SortOrder", "Descending") == "Descending",
        )
        page, token = cut_page(records, request, default_limit=10)
        return {self.kind.summaries_member: [self._summarize(record) for record in page], **token}

    def _summarize(self, record: Record) -> Mapping[str, Any]:
        """Return an item of a list. Its members have the same names as in Describe's response, except `Source`."""
        source = {f"{self.kind.noun}Source": record.description["Source"]} if "Source" in record.description else {}
        members = {**record.description, **self.compute_summary_members(record), **source}
        return describe_as(f"{self.kind.noun}Summary", replace(record, description=members))

    def compute_summary_members(self, record: Record) -> Mapping[str, Any]:  # noqa: ARG002  trial components use the record
        """Return the members of a list's item that are not stored."""
        return {}

    def select(self, request: Request) -> Iterable[Record]:  # noqa: ARG002  trials and trial components use the request's filters
        """Return the resources that a List request selects, in any order."""
        return self.context.state.find(Query(self.kind.arn_type, limit=-1))

    def update(self, request: Request) -> Response:
        record = self.find(request)
        changes = select_response_members(
            f"Describe{self.kind.noun}", request, excluded_members=(self.kind.name_member,)
        )
        self.context.state.update(self.kind.arn_type, record.name, changes)
        return {self.kind.arn_member: record.arn}

    def delete(self, request: Request) -> Response:
        with self.context.state.transaction():
            record = self.find(request)
            self.check_deletion(record)
            self.context.state.delete(self.kind.arn_type, record.name)
        return {self.kind.arn_member: record.arn}

    def check_deletion(self, record: Record) -> None:
        """Raise ValidationError if a resource cannot be deleted."""

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {f"Update{self.kind.noun}": self.update}


class ExperimentOperations(_ExperimentOperations):
    kind = EXPERIMENT

    def check_deletion(self, record: Record) -> None:
        if trials := associations.list_trials_of_experiment(self.context, record.name):
            raise ValidationError(
                f"Experiment {record.name} has trials, such as {trials[0].name}: delete all of them first."
            )


class TrialOperations(_ExperimentOperations):
    kind = TRIAL

    def add(self, request: Request) -> Record:
        experiment = associations.find_record(self.context, EXPERIMENT.arn_type, request["ExperimentName"])
        return self._add_with_owner(request, Owner(EXPERIMENT.arn_type, experiment.name))

    def select(self, request: Request) -> Iterable[Record]:
        records = super().select(request)
        if "ExperimentName" in request:
            experiment = associations.find_record(self.context, EXPERIMENT.arn_type, request["ExperimentName"])
            records = associations.list_trials_of_experiment(self.context, experiment.name)
        if "TrialComponentName" in request:
            component = associations.find_record(self.context, TRIAL_COMPONENT.arn_type, request["TrialComponentName"])
            names = set(associations.list_trial_names_of_component(self.context, component.name))
            return [record for record in records if record.name in names]
        return records

    def check_deletion(self, record: Record) -> None:
        if names := associations.list_component_names_of_trial(self.context, record.name):
            raise ValidationError(
                f"Trial {record.name} has trial components, such as {names[0]}: disassociate all of them first."
            )


class TrialComponentOperations(_ExperimentOperations):
    kind = TRIAL_COMPONENT

    def compute_summary_members(self, record: Record) -> Mapping[str, Any]:
        return job_trial_components.derive_members(self.context, record)

    def compute_members(self, record: Record) -> Mapping[str, Any]:
        members = job_trial_components.derive_members(self.context, record)
        metrics = component_metrics.summarize(self.context.metrics, record)
        parents = associations.list_parents(self.context, record.name)
        return {**members, "Metrics": metrics, "Parents": parents}

    def select(self, request: Request) -> Iterable[Record]:
        filters = [name for name in ("ExperimentName", "TrialName", "SourceArn") if name in request]
        if len(filters) > 1:
            raise ValidationError(f"{' and '.join(filters)} cannot be combined: set one of them.")
        if "ExperimentName" in request:
            experiment = associations.find_record(self.context, EXPERIMENT.arn_type, request["ExperimentName"])
            trial_names = [
                trial.name for trial in associations.list_trials_of_experiment(self.context, experiment.name)
            ]
        elif "TrialName" in request:
            trial_names = [associations.find_record(self.context, TRIAL.arn_type, request["TrialName"]).name]
        else:
            source = request.get("SourceArn")
            return [
                record
                for record in super().select(request)
                if source is None or record.description.get("Source", {}).get("SourceArn") == source
            ]
        names = [
            name
            for trial_name in trial_names
            for name in associations.list_component_names_of_trial(self.context, trial_name)
        ]
        return associations.find_components(self.context, names)

    def update(self, request: Request) -> Response:
        record = self.find(request)
        changes = select_response_members(
            "DescribeTrialComponent", request, excluded_members=(self.kind.name_member, *DICTIONARY_MEMBERS)
        )
        for name in DICTIONARY_MEMBERS:
            merged_members = {**record.description.get(name, {}), **request.get(name, {})}
            removed_names = request.get(f"{name}ToRemove", ())
            changes[name] = {key: value for key, value in merged_members.items() if key not in removed_names}
        self.context.state.update(self.kind.arn_type, record.name, changes)
        return {self.kind.arn_member: record.arn}

    def check_deletion(self, record: Record) -> None:
        if trial_names := associations.list_trial_names_of_component(self.context, record.name):
            raise ValidationError(f"Trial component {record.name} is in trial {trial_names[0]}: disassociate it first.")

    def list_additional_handlers(self) -> Mapping[str, Handler]:
        return {
            **super().list_additional_handlers(),
            "AssociateTrialComponent": self.associate,
            "DisassociateTrialComponent": self.disassociate,
        }

    def associate(self, request: Request) -> Response:
        return self._change_association(request, associations.associate)

    def disassociate(self, request: Request) -> Response:
        return self._change_association(request, associations.disassociate)

    def _change_association(self, request: Request, change: Any) -> Response:
        with self.context.state.transaction():
            trial_name = request["TrialName"]
            component = self.find(request)
            trial = associations.find_record(self.context, TRIAL.arn_type, trial_name)
            change(self.context, component.name, trial.name)
        return {"TrialComponentArn": component.arn, "TrialArn": trial.arn}
