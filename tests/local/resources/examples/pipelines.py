"""Example of a pipeline."""

import json
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.kinds import PIPELINE
from tests.local.clients import LocalServer
from tests.local.resources.examples import Example


def make_request(local: LocalServer, name: str) -> dict[str, Any]:
    parameters = [{"Name": "reason", "Type": "String", "DefaultValue": name}]
    step = {"Name": "stop", "Type": "Fail", "Arguments": {"ErrorMessage": {"Get": "Parameters.reason"}}}
    definition = {"Version": "2020-12-01", "Parameters": parameters, "Steps": [step]}
    return {"PipelineDefinition": json.dumps(definition), "RoleArn": local.address.role_arn}


EXAMPLES = (Example(PIPELINE, make_request),)
