"""Example of a processing job."""

from typing import Any

from microjobs.contract import Layout
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from tests.local.clients import (
    ROOT,
    LocalServer,
    make_processing_input,
    make_processing_output,
    make_processing_request,
)
from tests.local.resources.examples import Example

SCRIPT = f"cd {ROOT}/processing; sleep 1; cat input/*; cp input/* output/"


def make_request(server: LocalServer, name: str) -> dict[str, Any]:
    server.put({f"{name}/input/{key}": f"{key}\n" for key in "ab"})
    source, target = (str(Layout().processing(folder)) for folder in ("input", "output"))
    return make_processing_request(
        SCRIPT,
        instances=2,
        ProcessingJobName=name,
        ProcessingInputs=[make_processing_input("in", server.uri(f"{name}/input/"), source, "ShardedByS3Key")],
        ProcessingOutputConfig={"Outputs": [make_processing_output("out", server.uri(f"{name}/output"), target)]},
    )


EXAMPLES = (Example(PROCESSING_JOB, make_request),)
