"""A server that is killed again and again in the middle of its work, and what must hold after it."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker
from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from microjobs_orchestrator.local.home import Home
from tests.local.clients import FINAL_STATUSES, LocalServer, processing_request, training_request, wait_until
from tests.local.drills.examples import Examples
from tests.local.drills.image import ML, said
from tests.local.drills.leaks import machine, started, temporary_folder
from tests.local.drills.uploads import Uploads

LOST = "the local server ended while the job ran"
MODEL = "drill"
OBJECTS = 3
LONGEST = 7.0
"""Seconds from the beginning of a round to the server's end."""


@dataclass
class Job:
    """A job that the server has taken."""

    kind: str
    """Training, Processing or Transform, as in the operations' names."""
    name: str
    lines: int
    burst: int
    hosts: int
    stopped: bool = False
    seen: dict[str, list[str]] = field(default_factory=dict)
    """Its output, as a client has seen it before the server ended."""
    status: str = ""
    """The same of its status."""

    @property
    def plan(self) -> str:
        return f"{self.kind.lower()}-job/{self.name}"


class Drill:
    """Rounds of work, kill, start and check on one folder."""

    def __init__(self, home: Home, image: str, seed: int, engine: docker.DockerClient) -> None:
        self.home = home
        self._image = image
        self._engine = engine
        self._generator = random.Random(seed)  # noqa: S311  not for secrets
        self._number = 0
        self._endpoint = ""
        self._tuning = ""
        self._jobs: list[Job] = []
        self._examples: Examples
        self._finished: dict[tuple[str, str], bytes] = {}
        """What jobs that have ended well left, by the jobs' kinds and names."""
        self._config = Config(port=_free_port(), runtime="docker")
        self._process = self._launch()
        self.local = self._found()
        self._uploads = Uploads(self.local.s3, self.local.address.bucket, seed)
        self._temporary = machine(engine, home).temporary
        self._make_model()

    # --- the server ---

    def _launch(self) -> subprocess.Popen[bytes]:
        self.home.create()
        command = [sys.executable, "-m", "microjobs_orchestrator.local", *self._config.arguments()]
        environment = {**os.environ, "MICROJOBS_HOME": str(self.home.root), "TMPDIR": str(temporary_folder(self.home))}
        with self.home.server_log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def _found(self) -> LocalServer:
        address = wait_until(
            lambda: control.find_server(self.home),
            lambda address: address is not None and address.pid == self._process.pid,
            seconds=60,
        )
        return LocalServer(self.home, address)

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _restart(self) -> None:
        """Start it again; now and then it is killed while it starts, too."""
        self._process = self._launch()
        while self._generator.random() < 0.3:
            time.sleep(self._generator.uniform(0.3, 2.0))
            self._kill()
            self._process = self._launch()
        self._found()

    def end(self) -> None:
        """End the server in order, as `down` does; nothing of it may be left."""
        self._process.terminate()
        self._process.wait(60)
        left = machine(self._engine, self.home)
        assert not left.containers | left.networks | left.volumes | left.folders | left.incoming, left

    # --- a round ---

    def round(self) -> None:
        self._uploads.go_on()
        self._examples = Examples(self.local, self._name("example"))
        left = self._generator.uniform(0.0, LONGEST)
        kill_at = time.monotonic() + left
        client = threading.Thread(target=self._submit, daemon=True)
        client.start()
        time.sleep(max(0.0, kill_at - LONGEST / 4 - time.monotonic()))
        self._look()
        time.sleep(max(0.0, kill_at - time.monotonic()))
        self._kill()
        client.join()
        self._uploads.check(self.local.bucket)
        running = started(self._engine, self.home)
        self._restart()
        self._uploads.pause()
        self._uploads.check(self.local.bucket)
        self._uploads.abort_all()
        for job in self._jobs:
            self._check_job(job, running)
        self._check_tuning()
        self._examples.check()
        self._check_endpoint()
        self._check_finished()
        self._check_machine()
        self._jobs, self._tuning = [], ""

    def _submit(self) -> None:
        """Ask for work until the server is gone."""
        with suppress(BotoCoreError, ClientError):
            self._ask_for_work()

    def _ask_for_work(self) -> None:
        """Jobs of all kinds, on one and two hosts, now and then another endpoint; some are stopped again."""
        if self._endpoint == "" or self._generator.random() < 0.3:
            self._replace_endpoint()
        self._tune()
        self._examples.create()
        for ask in (self._start_training, self._start_transform, self._start_processing, self._start_training):
            self._jobs.append(ask(self._generator.choice((1, 2))))
        if self._generator.random() < 0.4:
            job = self._generator.choice(self._jobs)
            job.stopped = True  # or it has ended already
            self._operation("stop", job)

    def _operation(self, verb: str, job: Job) -> dict[str, Any]:
        operation = getattr(self.local.sagemaker, f"{verb}_{job.kind.lower()}_job")
        answer: dict[str, Any] = operation(**{f"{job.kind}JobName": job.name})
        return answer

    def _new(self, kind: str, hosts: int) -> tuple[Job, dict[str, str]]:
        """A job that says something, and what it is given to say it."""
        choice = self._generator.choice
        job = Job(kind, self._name(kind.lower()), choice((1, 10, 30)), choice((0, 1000, 20_000)), hosts)
        return job, {"lines": str(job.lines), "burst": str(job.burst), "pause": "0.1"}

    def _start_training(self, hosts: int) -> Job:
        job, given = self._new("Training", hosts)
        self.local.sagemaker.create_training_job(
            **self._request(hosts) | {"TrainingJobName": job.name, "HyperParameters": given}
        )
        return job

    def _start_processing(self, hosts: int) -> Job:
        job, given = self._new("Processing", hosts)
        uri, path = self.local.uri(f"processed/{job.name}"), str(ML.processing("output"))
        output = {"OutputName": "weights", "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"}}
        application = {"ImageUri": self._image, "ContainerArguments": ["process", json.dumps(given)]}
        self.local.sagemaker.create_processing_job(
            **processing_request("", hosts)
            | {"ProcessingJobName": job.name, "AppSpecification": application}
            | {"ProcessingOutputConfig": {"Outputs": [output]}}
        )
        return job

    def _start_transform(self, hosts: int) -> Job:
        """Its containers say nothing, and answer `ok` to each object."""
        job = Job("Transform", self._name("transform"), 0, 0, hosts)
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": self.local.uri("rows/")}}
        self.local.sagemaker.create_transform_job(
            TransformJobName=job.name,
            ModelName=MODEL,
            TransformInput={"DataSource": source, "ContentType": "text/csv"},
            TransformOutput={"S3OutputPath": self.local.uri(f"scores/{job.name}")},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": hosts},
        )
        return job

    def _make_model(self) -> None:
        """What endpoints and transform jobs serve, and the objects that the latter read."""
        self.local.put({f"rows/{number}": "row" for number in range(OBJECTS)})
        self.local.sagemaker.create_model(
            ModelName=MODEL, PrimaryContainer={"Image": self._image}, ExecutionRoleArn=self.local.address.role_arn
        )

    def _request(self, hosts: int = 1) -> dict[str, Any]:
        request = training_request(self.local, "", hosts)
        metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
        algorithm = {"TrainingImage": self._image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
        return request | {"AlgorithmSpecification": algorithm}

    def _tune(self) -> None:
        definition = self._request()
        del definition["TrainingJobName"]
        definition["StaticHyperParameters"] = {"burst": "10", "pause": "0.1"}
        ranges = {"IntegerParameterRanges": [{"Name": "lines", "MinValue": "1", "MaxValue": "10"}]}
        name = self._name("tune")
        self.local.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"},
                "ResourceLimits": {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 3},
                "ParameterRanges": ranges,
            },
            TrainingJobDefinition=definition,
        )
        self._tuning = name

    def _replace_endpoint(self) -> None:
        sagemaker = self.local.sagemaker
        if self._endpoint:
            ending, self._endpoint = self._endpoint, ""  # the server may hear this and not answer any more
            sagemaker.delete_endpoint(EndpointName=ending)
        name = self._name("endpoint")
        variant = {"VariantName": "main", "ModelName": MODEL, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self._endpoint = name

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"

    def _look(self) -> None:
        """What a client sees while all goes on."""
        for job in self._jobs:
            job.seen = self.local.output(f"{job.kind}Jobs", job.name)
            job.status = str(self._operation("describe", job)[f"{job.kind}JobStatus"])

    # --- what must hold ---

    def _check_job(self, job: Job, running: set[str]) -> None:
        found = wait_until(
            lambda: self._operation("describe", job), lambda found: found[f"{job.kind}JobStatus"] in FINAL_STATUSES
        )
        status = found[f"{job.kind}JobStatus"]
        story = f"{job}, running: {job.plan in running}, found: {found}"
        if job.status in FINAL_STATUSES:
            assert status == job.status, story
        if status == "Failed":
            assert LOST in found["FailureReason"], story
            assert job.plan not in running, story
        elif status == "Stopped":
            assert job.stopped, story
        output = self._whole_output(job)
        for host, lines in job.seen.items():
            assert output[host][: len(lines)] == lines, story
        whole = [] if job.kind == "Transform" else said(job.lines, job.burst)
        for lines in output.values():
            assert lines == whole[: len(lines)], (story, lines[:50], lines[-5:])
        if status == "Completed":
            assert [len(lines) for lines in output.values()] == [len(whole)] * job.hosts, story
            self._finished[job.kind, job.name] = b"ok" * OBJECTS if not whole else b"%d" % job.lines * 1000

    def _whole_output(self, job: Job) -> dict[str, list[str]]:
        streams = self.local.home.logs.glob(f"aws/sagemaker/{job.kind}Jobs/{job.name}/*")
        return {
            path.name.rpartition("-")[0]: [line.partition(" ")[2] for line in path.read_text().splitlines()]
            for path in streams
        }

    def _check_tuning(self) -> None:
        if self._tuning == "":
            return
        describe = self.local.sagemaker.describe_hyper_parameter_tuning_job
        found = wait_until(
            lambda: describe(HyperParameterTuningJobName=self._tuning),
            lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
        )
        pages = self.local.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        trials = list(pages.paginate(HyperParameterTuningJobName=self._tuning).search("TrainingJobSummaries[]"))
        assert len(trials) == 3, found
        for trial in trials:
            story = self.local.training(trial["TrainingJobName"])
            assert trial["TrainingJobStatus"] == "Completed" or LOST in story["FailureReason"], story
            if trial["TrainingJobStatus"] == "Completed":
                lines = int(trial["TunedHyperParameters"]["lines"])
                self._finished["Training", trial["TrainingJobName"]] = b"%d" % lines * 1000
        any_ended = any(trial["TrainingJobStatus"] == "Completed" for trial in trials)
        assert found["HyperParameterTuningJobStatus"] == ("Completed" if any_ended else "Failed"), found

    def _check_endpoint(self) -> None:
        """The endpoint answers; one that the server may or may not have heard of goes."""
        sagemaker = self.local.sagemaker
        there = [item["EndpointName"] for item in sagemaker.list_endpoints()["Endpoints"]]
        for name in there:
            if name != self._endpoint:
                sagemaker.delete_endpoint(EndpointName=name)
        if self._endpoint == "":
            return
        assert self._endpoint in there
        describe = sagemaker.describe_endpoint
        wait_until(
            lambda: describe(EndpointName=self._endpoint)["EndpointStatus"], lambda status: status == "InService"
        )
        runtime = self.local.client("sagemaker-runtime")
        assert runtime.invoke_endpoint(EndpointName=self._endpoint, Body=b"?")["Body"].read() == b"ok"

    def _check_finished(self) -> None:
        """Whatever has ended well in any round is there still, and whole."""
        for (kind, name), left in self._finished.items():
            described = self._operation("describe", Job(kind, name, 0, 0, 0))
            assert described[f"{kind}JobStatus"] == "Completed", described
            assert self._left_by(kind, name) == left, name

    def _left_by(self, kind: str, name: str) -> bytes:
        if kind == "Processing":
            return (self.local.bucket / f"processed/{name}/weights").read_bytes()
        if kind == "Transform":
            return b"".join((self.local.bucket / f"scores/{name}/{n}.out").read_bytes() for n in range(OBJECTS))
        with tarfile.open(self.local.bucket / f"models/{name}/output/model.tar.gz") as archive:
            file = archive.extractfile("weights")
            assert file is not None
            return file.read()

    def _check_machine(self) -> None:
        """Nothing is left but the endpoint."""
        mine = f"endpoint/{self._endpoint}/"

        def others(names: Sequence[str] | frozenset[str], beginning: str = mine) -> list[str]:
            return [name for name in names if not name.startswith(beginning)]

        def left() -> list[str]:
            now = machine(self._engine, self.home)
            plans = others(now.containers) + others(now.networks) + others(now.volumes)
            folders = others(now.folders, mine.replace("/", "-"))
            return plans + folders + sorted(now.incoming) + sorted(now.temporary - self._temporary)

        wait_until(left, lambda names: names == [], seconds=60)
        assert list((self.home.objects / "uploads").iterdir()) == []

    def give_up(self) -> None:
        """After a failure: leave nothing behind."""
        with suppress(OSError, BotoCoreError):
            self._uploads.pause()
            self._process.terminate()
            self._process.wait(60)


def _free_port() -> int:
    """A port that a server of the same address can have again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
