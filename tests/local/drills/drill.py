"""Rounds in which a server is killed while it works, and the checks after its restart."""

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
from tests.local.drills.image import LAYOUT, expected_lines
from tests.local.drills.leaks import list_objects, list_started_plans, temporary_folder
from tests.local.drills.registrations import Registrations
from tests.local.drills.uploads import Uploads

LOST_REASON = "the local server ended while the job ran"
MODEL = "drill"
OBJECTS = 3
MAX_ROUND_SECONDS = 7.0
"""Maximum time from the start of a round to the end of the server."""


@dataclass
class Job:
    """A job that the server has created."""

    kind: str
    """Training, Processing or Transform, as in the operations' names."""
    name: str
    lines: int
    """Number of lines that each host prints, with pauses."""
    burst: int
    """Number of lines that each host then prints without pauses."""
    hosts: int
    is_stopped: bool = False
    seen_lines: dict[str, list[str]] = field(default_factory=dict)
    """The lines that a client read before the server was killed, by host."""
    seen_status: str = ""
    """The status that a client read before the server was killed."""

    @property
    def plan(self) -> str:
        return f"{self.kind.lower()}-job/{self.name}"


class Drill:
    """Rounds of work, kill, restart and checks on one home."""

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
        """The output of completed jobs, by the jobs' kinds and names."""
        self._config = Config(port=find_free_port(), runtime="docker")
        self._process = self._launch()
        self.local = self._wait_for_server()
        self._uploads = Uploads(self.local.s3, self.local.address.bucket, seed)
        self._initial_temporary = list_objects(engine, home).temporary
        self._make_model()
        self._registrations = Registrations(self.local.sagemaker)

    # --- the server ---

    def _launch(self) -> subprocess.Popen[bytes]:
        self.home.create()
        command = [sys.executable, "-m", "microjobs_orchestrator.local", *self._config.to_flags()]
        environment = {**os.environ, "MICROJOBS_HOME": str(self.home.root), "TMPDIR": str(temporary_folder(self.home))}
        with self.home.server_log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def _wait_for_server(self) -> LocalServer:
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
        """Start the server again. In some rounds it is also killed while it starts."""
        self._process = self._launch()
        while self._generator.random() < 0.3:
            time.sleep(self._generator.uniform(0.3, 2.0))
            self._kill()
            self._process = self._launch()
        self._wait_for_server()

    def end(self) -> None:
        """Stop the server as `microjobs local down` does, and check that no container, file or network remains."""
        self._process.terminate()
        self._process.wait(60)
        found = list_objects(self._engine, self.home)
        assert not found.containers | found.networks | found.volumes | found.folders | found.incoming, found

    # --- a round ---

    def run_round(self) -> None:
        self._uploads.resume()
        self._examples = Examples(self.local, self._make_name("example"))
        kill_at = time.monotonic() + self._generator.uniform(0.0, MAX_ROUND_SECONDS)
        client = threading.Thread(target=self._submit, daemon=True)
        client.start()
        time.sleep(max(0.0, kill_at - MAX_ROUND_SECONDS / 4 - time.monotonic()))
        self._read_state()
        time.sleep(max(0.0, kill_at - time.monotonic()))
        self._kill()
        client.join()
        self._uploads.check(self.local.bucket)
        running = list_started_plans(self._engine, self.home)
        self._restart()
        self._uploads.pause()
        self._uploads.check(self.local.bucket)
        self._uploads.abort_all()
        for job in self._jobs:
            self._check_job(job, running)
        self._registrations.check()
        self._check_tuning()
        self._examples.check()
        self._check_endpoint()
        self._check_finished()
        self._check_machine()
        self._jobs, self._tuning = [], ""

    def _submit(self) -> None:
        """Create resources until the server is killed."""
        with suppress(BotoCoreError, ClientError):
            self._create_resources()

    def _create_resources(self) -> None:
        """Create jobs of all kinds on one or two hosts, and sometimes another endpoint. Stop some of the jobs."""
        if self._endpoint == "" or self._generator.random() < 0.3:
            self._replace_endpoint()
        self._start_tuning()
        self._examples.create()
        for start in (self._start_training, self._start_transform, self._start_processing, self._start_training):
            self._jobs.append(start(self._generator.choice((1, 2))))
        if self._generator.random() < 0.4:
            job = self._generator.choice(self._jobs)
            job.is_stopped = True  # unless it has ended already
            self._call_operation("stop", job)

    def _call_operation(self, verb: str, job: Job) -> dict[str, Any]:
        operation = getattr(self.local.sagemaker, f"{verb}_{job.kind.lower()}_job")
        answer: dict[str, Any] = operation(**{f"{job.kind}JobName": job.name})
        return answer

    def _make_job(self, kind: str, hosts: int) -> tuple[Job, dict[str, str]]:
        """Return a new job and its hyperparameters, which decide how many lines it prints."""
        choice = self._generator.choice
        job = Job(kind, self._make_name(kind.lower()), choice((1, 10, 30)), choice((0, 1000, 20_000)), hosts)
        return job, {"lines": str(job.lines), "burst": str(job.burst), "pause": "0.1"}

    def _start_training(self, hosts: int) -> Job:
        job, hyperparameters = self._make_job("Training", hosts)
        self.local.sagemaker.create_training_job(
            **self._make_training_request(hosts)
            | {"TrainingJobName": job.name, "HyperParameters": hyperparameters}
            | {"ModelPackageConfig": self._registrations.config}
        )
        return job

    def _start_processing(self, hosts: int) -> Job:
        job, hyperparameters = self._make_job("Processing", hosts)
        uri, path = self.local.uri(f"processed/{job.name}"), str(LAYOUT.processing("output"))
        output = {"OutputName": "weights", "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"}}
        application = {"ImageUri": self._image, "ContainerArguments": ["process", json.dumps(hyperparameters)]}
        self.local.sagemaker.create_processing_job(
            **processing_request("", hosts)
            | {"ProcessingJobName": job.name, "AppSpecification": application}
            | {"ProcessingOutputConfig": {"Outputs": [output]}}
        )
        return job

    def _start_transform(self, hosts: int) -> Job:
        """Start a transform job. Its containers print no lines, and answer `ok` to each object."""
        job = Job("Transform", self._make_name("transform"), 0, 0, hosts)
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
        """Create the model of endpoints and transform jobs, and the objects that transform jobs read."""
        self.local.put({f"rows/{number}": "row" for number in range(OBJECTS)})
        self.local.sagemaker.create_model(
            ModelName=MODEL, PrimaryContainer={"Image": self._image}, ExecutionRoleArn=self.local.address.role_arn
        )

    def _make_training_request(self, hosts: int = 1) -> dict[str, Any]:
        request = training_request(self.local, "", hosts)
        metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
        algorithm = {"TrainingImage": self._image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
        return request | {"AlgorithmSpecification": algorithm}

    def _start_tuning(self) -> None:
        definition = self._make_training_request()
        del definition["TrainingJobName"]
        definition["StaticHyperParameters"] = {"burst": "10", "pause": "0.1"}
        ranges = {"IntegerParameterRanges": [{"Name": "lines", "MinValue": "1", "MaxValue": "10"}]}
        name = self._make_name("tune")
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
            old, self._endpoint = self._endpoint, ""  # the server may be killed before it answers
            sagemaker.delete_endpoint(EndpointName=old)
        name = self._make_name("endpoint")
        variant = {"VariantName": "main", "ModelName": MODEL, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self._endpoint = name

    def _make_name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"

    def _read_state(self) -> None:
        """Read the lines and the status of each job before the server is killed."""
        for job in self._jobs:
            job.seen_lines = self.local.read_logs(f"{job.kind}Jobs", job.name)
            job.seen_status = str(self._call_operation("describe", job)[f"{job.kind}JobStatus"])

    # --- checks ---

    def _check_job(self, job: Job, running: set[str]) -> None:
        found = wait_until(
            lambda: self._call_operation("describe", job), lambda found: found[f"{job.kind}JobStatus"] in FINAL_STATUSES
        )
        status = found[f"{job.kind}JobStatus"]
        details = f"{job}, running: {job.plan in running}, found: {found}"
        if job.seen_status in FINAL_STATUSES:
            assert status == job.seen_status, details
        if status == "Failed":
            assert LOST_REASON in found["FailureReason"], details
            assert job.plan not in running, details
        elif status == "Stopped":
            assert job.is_stopped, details
        output = self._read_complete_logs(job)
        for host, lines in job.seen_lines.items():
            assert output[host][: len(lines)] == lines, details
        expected = [] if job.kind == "Transform" else expected_lines(job.lines, job.burst)
        for lines in output.values():
            assert lines == expected[: len(lines)], (details, lines[:50], lines[-5:])
        if status == "Completed":
            if job.kind == "Training":
                self._registrations.check_job(found)
            assert [len(lines) for lines in output.values()] == [len(expected)] * job.hosts, details
            self._finished[job.kind, job.name] = b"ok" * OBJECTS if not expected else b"%d" % job.lines * 1000

    def _read_complete_logs(self, job: Job) -> dict[str, list[str]]:
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
            described = self.local.describe_training(trial["TrainingJobName"])
            assert trial["TrainingJobStatus"] == "Completed" or LOST_REASON in described["FailureReason"], described
            if trial["TrainingJobStatus"] == "Completed":
                lines = int(trial["TunedHyperParameters"]["lines"])
                self._finished["Training", trial["TrainingJobName"]] = b"%d" % lines * 1000
        any_completed = any(trial["TrainingJobStatus"] == "Completed" for trial in trials)
        assert found["HyperParameterTuningJobStatus"] == ("Completed" if any_completed else "Failed"), found

    def _check_endpoint(self) -> None:
        """Check that the endpoint answers. Delete endpoints whose Create request had no response."""
        sagemaker = self.local.sagemaker
        names = [item["EndpointName"] for item in sagemaker.list_endpoints()["Endpoints"]]
        for name in names:
            if name != self._endpoint:
                sagemaker.delete_endpoint(EndpointName=name)
        if self._endpoint == "":
            return
        assert self._endpoint in names
        describe = sagemaker.describe_endpoint
        wait_until(
            lambda: describe(EndpointName=self._endpoint)["EndpointStatus"], lambda status: status == "InService"
        )
        runtime = self.local.client("sagemaker-runtime")
        assert runtime.invoke_endpoint(EndpointName=self._endpoint, Body=b"?")["Body"].read() == b"ok"

    def _check_finished(self) -> None:
        """Check that the outputs of all completed jobs are still complete."""
        for (kind, name), expected in self._finished.items():
            described = self._call_operation("describe", Job(kind, name, 0, 0, 0))
            assert described[f"{kind}JobStatus"] == "Completed", described
            assert self._read_output(kind, name) == expected, name

    def _read_output(self, kind: str, name: str) -> bytes:
        if kind == "Processing":
            return (self.local.bucket / f"processed/{name}/weights").read_bytes()
        if kind == "Transform":
            return b"".join((self.local.bucket / f"scores/{name}/{n}.out").read_bytes() for n in range(OBJECTS))
        with tarfile.open(self.local.bucket / f"models/{name}/output/model.tar.gz") as archive:
            file = archive.extractfile("weights")
            assert file is not None
            return file.read()

    def _check_machine(self) -> None:
        """Check that only the endpoint has containers, networks, volumes and files."""
        endpoint_prefix = f"endpoint/{self._endpoint}/"

        def without_endpoint(names: Sequence[str] | frozenset[str], prefix: str = endpoint_prefix) -> list[str]:
            return [name for name in names if not name.startswith(prefix)]

        def list_leftovers() -> list[str]:
            now = list_objects(self._engine, self.home)
            plans = without_endpoint(now.containers) + without_endpoint(now.networks) + without_endpoint(now.volumes)
            folders = without_endpoint(now.folders, endpoint_prefix.replace("/", "-"))
            return plans + folders + sorted(now.incoming) + sorted(now.temporary - self._initial_temporary)

        wait_until(list_leftovers, lambda names: names == [], seconds=60)
        assert list((self.home.objects / "uploads").iterdir()) == []

    def clean_up(self) -> None:
        """Stop the server and the uploads after a failure."""
        with suppress(OSError, BotoCoreError):
            self._uploads.pause()
            self._process.terminate()
            self._process.wait(60)


def find_free_port() -> int:
    """Return a port on which each restarted server can listen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
