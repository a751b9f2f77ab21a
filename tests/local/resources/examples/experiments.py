"""Examples of an experiment, an experiment trial and a trial component."""

from typing import Any

from microjobs_orchestrator.local.resources.experiments.kinds import EXPERIMENT, TRIAL, TRIAL_COMPONENT
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_experiment_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"Description": "an example"}


def make_trial_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"ExperimentName": name}


def make_component_request(server: LocalServer, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"Parameters": {"name": {"StringValue": name}, "rate": {"NumberValue": 0.5}}}


EXAMPLES = (
    Example(EXPERIMENT, make_experiment_request),
    Example(TRIAL, make_trial_request, required_kinds=(EXPERIMENT,)),
    Example(TRIAL_COMPONENT, make_component_request),
)
