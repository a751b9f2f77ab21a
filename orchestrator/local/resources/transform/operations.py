"""The operations on batch transform jobs.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html
"""

from functools import partial

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.experiments import job_trial_components
from microjobs_orchestrator.local.resources.models.containers import refuse_direct_mode
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.multi_model import refuse_multi_model
from microjobs_orchestrator.local.resources.operations import Request, RunningOperations, add_resource, find_resource
from microjobs_orchestrator.local.resources.transform import captures
from microjobs_orchestrator.local.resources.transform.feeder import TransformOptions
from microjobs_orchestrator.local.resources.transform.job import TransformJob, list_objects
from microjobs_orchestrator.local.resources.transform.kinds import TRANSFORM_JOB
from microjobs_orchestrator.local.state import Record


class TransformJobOperations(RunningOperations):
    kind = TRANSFORM_JOB

    def add(self, request: Request) -> Record:
        """Check the model, data and limits; add the job, which checks the limits again with the container's values."""
        model = find_resource(self.context, MODEL, request["ModelName"]).request
        refuse_multi_model(model, "Batch transform")
        refuse_direct_mode(model, "Batch transform")
        # Without MaxPayloadInMB, the container may choose the size. Assume the smallest size: a request that is invalid
        # even with this size is always invalid.
        TransformOptions.read({"MaxPayloadInMB": 1, **request}, parameters={})
        list_objects(self.context, request)
        captures.check(self.context, request)
        members = {
            "TransformInput": {"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
            "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **request["TransformOutput"]},
        }
        add = partial(
            add_resource, self.context, TRANSFORM_JOB, request, members=members, referenced_resources={"Model": model}
        )
        return job_trial_components.add_job(self.context, request, add)

    def make_runnable(self, record: Record) -> Runnable:
        return TransformJob(self.context, record)
