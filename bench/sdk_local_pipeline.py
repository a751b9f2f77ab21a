"""SageMaker SDK v2's local pipelines, for bench/pipelines.py. Runs with the SDK's interpreter.

For each line on stdin, `chain` or `parallel`, runs a pipeline and prints its seconds. Arguments: the image, the number
of steps, and the seconds that a step of `parallel` sleeps.
"""

import sys
import time

from sagemaker.processing import Processor
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import LocalPipelineSession
from sagemaker.workflow.steps import ProcessingStep

image, count, pause = sys.argv[1], int(sys.argv[2]), sys.argv[3]
role = "arn:aws:iam::000000000000:role/microjobs"
session = LocalPipelineSession()


def make_pipeline(name: str, seconds: str, *, is_chain: bool) -> Pipeline:
    processor = Processor(role, image, 1, "local", ["/bin/sleep", seconds], sagemaker_session=session)
    steps: list[ProcessingStep] = []
    for number in range(count):
        earlier_steps = steps[-1:] if is_chain else []
        steps.append(ProcessingStep(f"{name}{number}", step_args=processor.run(), depends_on=earlier_steps or None))
    pipeline = Pipeline(name, steps=steps, sagemaker_session=session)
    pipeline.create(role)
    return pipeline


pipelines = {
    "chain": make_pipeline("chain", "0", is_chain=True),
    "parallel": make_pipeline("parallel", pause, is_chain=False),
}
for line in sys.stdin:
    start_time = time.perf_counter()
    execution = pipelines[line.strip()].start()
    status = execution.describe()["PipelineExecutionStatus"]
    if status != "Succeeded":
        sys.exit(f"the pipeline is {status}")
    print("seconds:", time.perf_counter() - start_time, flush=True)
