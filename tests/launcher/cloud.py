"""SageMaker, S3 and logs in memory, behind real boto3 clients.

botocore validates and serialises each request, and the local server's validation checks the requests to SageMaker. The
first Describe call for a job or an endpoint returns InProgress or Creating. From the second call on, the job is
Completed and the endpoint InService, unless a test sets `failure_reasons` or `hanging_steps`.
"""

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
from botocore.response import StreamingBody

from microjobs_orchestrator.images import get_local_image_name
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.protocols.validation import validate
from microjobs_orchestrator.runs.backend import Backend

TEST_ROWS = 12
PNG = b"\x89PNG not drawn"
START = datetime(2026, 11, 22, tzinfo=UTC)

SESSION: Any = boto3.Session()  # all tests share the session, which reads botocore's large service models once

Members = dict[str, Any]


def to_npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values, np.float32))
    return file.getvalue()


def make_tar_gz(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Cloud:
    """SageMaker, S3 and logs in memory.

    The jobs and endpoints of `hanging_steps` stay InProgress or Creating.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.resources: dict[tuple[str, str], Members] = {}
        """Descriptions by noun, such as `TrainingJob`, and by name."""
        self.requests: list[tuple[str, Members]] = []
        self.failure_reasons: dict[str, str] = {}
        """For each step whose job or endpoint must fail, the failure reason."""
        self.hanging_steps: set[str] = set()
        self.on_describe: Callable[[str], None] = lambda _name: None
        """A function that each Describe operation calls with the name of the resource."""
        self.log_lines = ["Epoch: 0 | Train loss: 0.757 | Test loss: 0.725", "done"]

    # --- clients ---

    def make_backend(self) -> Backend:
        return Backend(
            title="memory",
            reason="a test",
            sagemaker=self.make_client("sagemaker"),
            runtime=self.make_client("sagemaker-runtime"),
            s3=self.make_client("s3"),
            logs=self.make_client("logs"),
            bucket="bucket",
            role="arn:aws:iam::000000000000:role/microjobs",
            find_image_uri=get_local_image_name,
            poll_interval=0.001,
        )

    def make_client(self, service: Any) -> Any:
        client = SESSION.client(service, "us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")  # noqa: S106
        client.meta.events.register("before-parameter-build", self._store_members)
        client.meta.events.register("before-call", self._respond)
        return client

    def _store_members(self, params: Members, context: Members, **_: object) -> None:
        context["members"] = dict(params)

    def _respond(self, model: Any, params: Members, context: Members, **_: object) -> tuple[Any, Members]:
        members, name = context["members"], model.name
        try:
            if model.service_model.service_name == "sagemaker":
                validate(model, json.loads(params["body"]))
            self.requests.append((name, members))
            return SimpleNamespace(status_code=200, headers={}), self._handle(name, members)
        except ServiceError as error:
            return SimpleNamespace(status_code=400), {"Error": {"Code": error.code, "Message": error.message}}

    def find_requests(self, operation: str) -> list[Members]:
        return [members for name, members in self.requests if name == operation]

    # --- operations ---

    def _handle(self, operation: str, members: Members) -> Members:
        handler = getattr(self, operation, None)
        if handler is not None:
            response: Members = handler(members)
            return response
        verb = next(verb for verb in ("Create", "Describe", "Stop", "Delete", "List") if operation.startswith(verb))
        noun = operation.removeprefix(verb)
        if verb == "List":
            return self._list(noun.removesuffix("s"), members)
        handler = {"Create": self._create, "Describe": self._describe, "Stop": self._stop, "Delete": self._delete}[verb]
        return handler(noun, members[f"{noun}Name"], members)

    def _create(self, noun: str, name: str, members: Members) -> Members:
        if (noun, name) in self.resources:
            raise ServiceError("ResourceInUse", f"{name} exists already")
        status = "Creating" if noun == "Endpoint" else "InProgress"
        self.resources[noun, name] = {**members, f"{noun}Status": status, "CreationTime": self.make_creation_time()}
        return {}

    def make_creation_time(self) -> datetime:
        """Return a creation time for a new resource: the more resources exist, the later."""
        return START + timedelta(seconds=len(self.resources))

    def _describe(self, noun: str, name: str, _members: Members) -> Members:
        resource = self._get_resource(noun, name)
        self.on_describe(name)
        description = dict(resource)
        if resource[f"{noun}Status"] in ("InProgress", "Creating"):
            self._advance(noun, name, resource)
        return description

    def _advance(self, noun: str, name: str, resource: Members) -> None:
        step = next((step for step in (*self.failure_reasons, *self.hanging_steps) if step in name), "")
        if step in self.failure_reasons:
            resource |= {f"{noun}Status": "Failed", "FailureReason": self.failure_reasons[step]}
        elif step not in self.hanging_steps:
            getattr(self, f"_end_{noun}", lambda _name, _resource: None)(name, resource)
            resource[f"{noun}Status"] = "InService" if noun == "Endpoint" else "Completed"

    def _get_resource(self, noun: str, name: str) -> Members:
        if (noun, name) not in self.resources:
            raise ServiceError("ValidationException", f"Could not find {noun} {name}")
        return self.resources[noun, name]

    def _stop(self, noun: str, name: str, _members: Members) -> Members:
        self._get_resource(noun, name)[f"{noun}Status"] = "Stopped"
        return {}

    def _delete(self, noun: str, name: str, _members: Members) -> Members:
        self._get_resource(noun, name)
        del self.resources[noun, name]
        return {}

    def _list(self, noun: str, members: Members) -> Members:
        status, text = members.get("StatusEquals"), members.get("NameContains", "")
        resources = [
            resource
            for (resource_noun, name), resource in self.resources.items()
            if resource_noun == noun and text in name and status in (None, resource.get(f"{noun}Status"))
        ]
        resources.sort(
            key=lambda resource: resource.get("CreationTime", START), reverse=members.get("SortOrder") == "Descending"
        )
        nouns_with_plural = ("Endpoint", "EndpointConfig", "InferenceComponent", "Model")
        return {f"{noun}s" if noun in nouns_with_plural else f"{noun}Summaries": resources}

    # --- outputs of jobs ---

    def _end_ProcessingJob(self, _name: str, resource: Members) -> None:  # noqa: N802  `_advance` uses this name
        files = {
            "raw": {"x_test.npy": to_npy(np.zeros((TEST_ROWS, 3))), "y_test.npy": to_npy(np.arange(TEST_ROWS))},
            "train": {"x_train.npy": to_npy(np.zeros((TEST_ROWS, 3)))},
            "test": {
                "x_test-00000-of-00002.npy": to_npy(np.zeros((4, 3))),
                "x_test-00001-of-00002.npy": to_npy(np.ones((TEST_ROWS - 4, 3))),
                "y_test.npy": to_npy(np.arange(TEST_ROWS)),
            },
            "batch": {"predictions.npy": to_npy(np.arange(TEST_ROWS) + 0.5), "score-report.txt": b"Test MSE : 0.25"},
        }
        for output in resource["ProcessingOutputConfig"]["Outputs"]:
            for name, content in files[output["OutputName"]].items():
                self.objects[f"{output['S3Output']['S3Uri']}/{name}"] = content

    def _end_TrainingJob(self, name: str, resource: Members, mse: float = 30.0) -> None:  # noqa: N802
        folder = f"{resource['OutputDataConfig']['S3OutputPath']}/{name}/output"
        metrics = json.dumps({"test_mse": mse, "test_loss": mse}).encode()
        self.objects[f"{folder}/output.tar.gz"] = make_tar_gz({"metrics.json": metrics, "learning-curve.png": PNG})
        self.objects[f"{folder}/model.tar.gz"] = b"model"
        resource["ModelArtifacts"] = {"S3ModelArtifacts": f"{folder}/model.tar.gz"}
        resource["FinalMetricDataList"] = [{"MetricName": "val_loss", "Value": mse, "Timestamp": START}]

    def _end_HyperParameterTuningJob(self, name: str, resource: Members) -> None:  # noqa: N802
        for number in range(1, 7):
            job = f"{name}-{number:03}-abcd1234"
            trial = {
                "TrainingJobName": job,
                "TrainingJobStatus": "Completed",
                "CreationTime": self.make_creation_time(),
                "number": number,  # not a member of SageMaker: the trial's objective is computed from it
            }
            self.resources["TrainingJob", job] = {**resource["TrainingJobDefinition"], **trial}
            self._end_TrainingJob(job, self.resources["TrainingJob", job], mse=20.0 + number)
        resource["BestTrainingJob"] = {"TrainingJobName": f"{name}-001-abcd1234"}

    def ListTrainingJobsForHyperParameterTuningJob(self, members: Members) -> Members:  # noqa: N802
        prefix = f"{members['HyperParameterTuningJobName']}-"
        trials = [(name, resource) for (_, name), resource in self.resources.items() if name.startswith(prefix)]
        return {
            "TrainingJobSummaries": [
                {
                    "TrainingJobName": name,
                    "TrainingJobStatus": "Completed",
                    "TunedHyperParameters": {"learning_rate": "0.0123456", "epochs": "42", "batch_size": "77"},
                    "FinalHyperParameterTuningJobObjectiveMetric": {"Value": 20.0 + resource["number"]},
                }
                for name, resource in reversed(trials)
            ]
        }

    def InvokeEndpoint(self, members: Members) -> Members:  # noqa: N802
        self._get_resource("Endpoint", members["EndpointName"])
        rows = json.loads(members["Body"])["instances"]
        body = json.dumps({"predictions": [[row[0] * 0.3 + 0.9] for row in rows]}).encode()
        return {"Body": StreamingBody(io.BytesIO(body), len(body))}

    # --- logs and objects ---

    def DescribeLogStreams(self, members: Members) -> Members:  # noqa: N802
        return {
            "logStreams": [
                {"logStreamName": f"{members.get('logStreamNamePrefix', 'AllTraffic/')}algo-1-1763778749000"}
            ]
        }

    def GetLogEvents(self, members: Members) -> Members:  # noqa: N802
        start = int(members.get("nextToken", "0"))
        events = [{"timestamp": index, "message": line} for index, line in enumerate(self.log_lines)]
        page = events[start : start + 1]
        return {"events": page, "nextForwardToken": str(start + len(page))}

    def PutObject(self, members: Members) -> Members:  # noqa: N802
        self.objects[f"s3://{members['Bucket']}/{members['Key']}"] = members["Body"].read()
        return {}

    def HeadObject(self, members: Members) -> Members:  # noqa: N802
        return {"ContentLength": len(self.objects[f"s3://{members['Bucket']}/{members['Key']}"]), "ETag": '"1"'}

    def GetObject(self, members: Members) -> Members:  # noqa: N802
        content = self.objects[f"s3://{members['Bucket']}/{members['Key']}"]
        return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentLength": len(content)}

    def ListObjectsV2(self, members: Members) -> Members:  # noqa: N802
        bucket = f"s3://{members['Bucket']}/"
        keys = [uri.removeprefix(bucket) for uri in sorted(self.objects) if uri.startswith(bucket + members["Prefix"])]
        return {"Contents": [{"Key": key} for key in keys], "IsTruncated": False}
