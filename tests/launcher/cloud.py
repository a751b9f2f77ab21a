"""SageMaker, S3 and logs in memory, behind real boto3 clients.

botocore checks and serialises each request, the local server's validation checks it again as the wire has it, and then
it is answered here. Jobs end at the second look at them, unless a test says otherwise.
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

from microjobs_orchestrator.images import local_image
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.validation import validate
from microjobs_orchestrator.runs.backend import Backend

ROWS = 12
PNG = b"\x89PNG not drawn"
START = datetime(2026, 11, 22, tzinfo=UTC)

SESSION: Any = boto3.Session()  # one for all tests: it reads AWS's large models once

Members = dict[str, Any]


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values, np.float32))
    return file.getvalue()


def tar_gz(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Cloud:
    """Set `failing`, `hanging` or `on_describe` to a step's name, or a function, to make something go wrong."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.things: dict[tuple[str, str], Members] = {}
        self.requests: list[tuple[str, Members]] = []
        self.failing: dict[str, str] = {}
        self.hanging: set[str] = set()
        self.on_describe: Callable[[str], None] = lambda _name: None
        self.log = ["Epoch: 0 | Train loss: 0.757 | Test loss: 0.725", "done"]

    # --- clients ---

    def backend(self) -> Backend:
        return Backend(
            title="memory",
            why="a test",
            sagemaker=self.client("sagemaker"),
            runtime=self.client("sagemaker-runtime"),
            s3=self.client("s3"),
            logs=self.client("logs"),
            bucket="bucket",
            role="arn:aws:iam::000000000000:role/microjobs",
            image=local_image,
            poll_interval=0.001,
        )

    def client(self, service: Any) -> Any:
        client = SESSION.client(service, "us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")  # noqa: S106
        client.meta.events.register("before-parameter-build", self._remember)
        client.meta.events.register("before-call", self._answer)
        return client

    def _remember(self, params: Members, context: Members, **_: object) -> None:
        context["asked"] = dict(params)

    def _answer(self, model: Any, params: Members, context: Members, **_: object) -> tuple[Any, Members]:
        asked, name = context["asked"], model.name
        try:
            if model.service_model.service_name == "sagemaker":
                validate(model, json.loads(params["body"]))
            self.requests.append((name, asked))
            return SimpleNamespace(status_code=200, headers={}), self._handle(name, asked)
        except ServiceError as error:
            return SimpleNamespace(status_code=400), {"Error": {"Code": error.code, "Message": error.message}}

    def asked(self, operation: str) -> list[Members]:
        return [asked for name, asked in self.requests if name == operation]

    # --- operations ---

    def _handle(self, operation: str, asked: Members) -> Members:
        own = getattr(self, operation, None)
        if own is not None:
            answer: Members = own(asked)
            return answer
        verb = next(verb for verb in ("Create", "Describe", "Stop", "Delete", "List") if operation.startswith(verb))
        word = operation.removeprefix(verb)
        if verb == "List":
            return self._list(word.removesuffix("s"), asked)
        handler = {"Create": self._create, "Describe": self._describe, "Stop": self._stop, "Delete": self._delete}[verb]
        return handler(word, asked[f"{word}Name"], asked)

    def _create(self, word: str, name: str, asked: Members) -> Members:
        if (word, name) in self.things:
            raise ServiceError("ResourceInUse", f"{name} is there already")
        status = "Creating" if word == "Endpoint" else "InProgress"
        self.things[word, name] = {**asked, f"{word}Status": status, "CreationTime": self._now()}
        return {}

    def _now(self) -> datetime:
        """A second later for each thing."""
        return START + timedelta(seconds=len(self.things))

    def _describe(self, word: str, name: str, _asked: Members) -> Members:
        thing = self._thing(word, name)
        self.on_describe(name)
        before = dict(thing)
        if thing[f"{word}Status"] in ("InProgress", "Creating"):
            self._advance(word, name, thing)
        return before

    def _advance(self, word: str, name: str, thing: Members) -> None:
        step = next((step for step in (*self.failing, *self.hanging) if step in name), "")
        if step in self.failing:
            thing |= {f"{word}Status": "Failed", "FailureReason": self.failing[step]}
        elif step not in self.hanging:
            getattr(self, f"_end_{word}", lambda _name, _thing: None)(name, thing)
            thing[f"{word}Status"] = "InService" if word == "Endpoint" else "Completed"

    def _thing(self, word: str, name: str) -> Members:
        if (word, name) not in self.things:
            raise ServiceError("ValidationException", f"Could not find {word} {name}")
        return self.things[word, name]

    def _stop(self, word: str, name: str, _asked: Members) -> Members:
        self._thing(word, name)[f"{word}Status"] = "Stopped"
        return {}

    def _delete(self, word: str, name: str, _asked: Members) -> Members:
        self._thing(word, name)
        del self.things[word, name]
        return {}

    def _list(self, word: str, asked: Members) -> Members:
        wanted, text = asked.get("StatusEquals"), asked.get("NameContains", "")
        rows = [
            thing
            for (kind, name), thing in self.things.items()
            if kind == word and text in name and wanted in (None, thing.get(f"{word}Status"))
        ]
        rows.sort(key=lambda thing: thing.get("CreationTime", START), reverse=asked.get("SortOrder") == "Descending")
        return {f"{word}s" if word in ("Endpoint", "EndpointConfig", "Model") else f"{word}Summaries": rows}

    # --- what jobs leave ---

    def _end_ProcessingJob(self, _name: str, thing: Members) -> None:  # noqa: N802  found by the kind's word
        files = {
            "raw": {"x_test.npy": npy(np.zeros((ROWS, 3))), "y_test.npy": npy(np.arange(ROWS))},
            "train": {"x_train.npy": npy(np.zeros((ROWS, 3)))},
            "test": {
                "x_test-00000-of-00002.npy": npy(np.zeros((4, 3))),
                "x_test-00001-of-00002.npy": npy(np.ones((ROWS - 4, 3))),
                "y_test.npy": npy(np.arange(ROWS)),
            },
            "batch": {"predictions.npy": npy(np.arange(ROWS) + 0.5), "score-report.txt": b"Test MSE : 0.25"},
        }
        for output in thing["ProcessingOutputConfig"]["Outputs"]:
            for name, content in files[output["OutputName"]].items():
                self.objects[f"{output['S3Output']['S3Uri']}/{name}"] = content

    def _end_TrainingJob(self, name: str, thing: Members, mse: float = 30.0) -> None:  # noqa: N802
        folder = f"{thing['OutputDataConfig']['S3OutputPath']}/{name}/output"
        metrics = json.dumps({"test_mse": mse, "test_loss": mse}).encode()
        self.objects[f"{folder}/output.tar.gz"] = tar_gz({"metrics.json": metrics, "learning-curve.png": PNG})
        self.objects[f"{folder}/model.tar.gz"] = b"model"
        thing["ModelArtifacts"] = {"S3ModelArtifacts": f"{folder}/model.tar.gz"}

    def _end_HyperParameterTuningJob(self, name: str, thing: Members) -> None:  # noqa: N802
        for number in range(1, 7):
            job = f"{name}-{number:03}-abcd1234"
            own = {
                "TrainingJobName": job,
                "TrainingJobStatus": "Completed",
                "CreationTime": self._now(),
                "number": number,
            }
            self.things["TrainingJob", job] = {**thing["TrainingJobDefinition"], **own}
            self._end_TrainingJob(job, self.things["TrainingJob", job], mse=20.0 + number)
        thing["BestTrainingJob"] = {"TrainingJobName": f"{name}-001-abcd1234"}

    def ListTrainingJobsForHyperParameterTuningJob(self, asked: Members) -> Members:  # noqa: N802
        prefix = f"{asked['HyperParameterTuningJobName']}-"
        trials = [(name, thing) for (_, name), thing in self.things.items() if name.startswith(prefix)]
        return {
            "TrainingJobSummaries": [
                {
                    "TrainingJobName": name,
                    "TrainingJobStatus": "Completed",
                    "TunedHyperParameters": {"learning_rate": "0.0123456", "epochs": "42", "batch_size": "77"},
                    "FinalHyperParameterTuningJobObjectiveMetric": {"Value": 20.0 + thing["number"]},
                }
                for name, thing in reversed(trials)
            ]
        }

    def InvokeEndpoint(self, asked: Members) -> Members:  # noqa: N802
        self._thing("Endpoint", asked["EndpointName"])
        rows = json.loads(asked["Body"])["instances"]
        body = json.dumps({"predictions": [[row[0] * 0.3 + 0.9] for row in rows]}).encode()
        return {"Body": StreamingBody(io.BytesIO(body), len(body))}

    # --- logs and objects ---

    def DescribeLogStreams(self, asked: Members) -> Members:  # noqa: N802
        return {
            "logStreams": [{"logStreamName": f"{asked.get('logStreamNamePrefix', 'AllTraffic/')}algo-1-1763778749000"}]
        }

    def GetLogEvents(self, asked: Members) -> Members:  # noqa: N802
        start = int(asked.get("nextToken", "0"))
        events = [{"timestamp": index, "message": line} for index, line in enumerate(self.log)]
        page = events[start : start + 1]
        return {"events": page, "nextForwardToken": str(start + len(page))}

    def PutObject(self, asked: Members) -> Members:  # noqa: N802
        self.objects[f"s3://{asked['Bucket']}/{asked['Key']}"] = asked["Body"].read()
        return {}

    def HeadObject(self, asked: Members) -> Members:  # noqa: N802
        return {"ContentLength": len(self.objects[f"s3://{asked['Bucket']}/{asked['Key']}"]), "ETag": '"1"'}

    def GetObject(self, asked: Members) -> Members:  # noqa: N802
        content = self.objects[f"s3://{asked['Bucket']}/{asked['Key']}"]
        return {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentLength": len(content)}

    def ListObjectsV2(self, asked: Members) -> Members:  # noqa: N802
        bucket = f"s3://{asked['Bucket']}/"
        keys = [uri.removeprefix(bucket) for uri in sorted(self.objects) if uri.startswith(bucket + asked["Prefix"])]
        return {"Contents": [{"Key": key} for key in keys], "IsTruncated": False}
