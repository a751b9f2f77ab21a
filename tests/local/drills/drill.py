"""A drill: rounds in which a server is killed while it works, with checks after each restart."""

import json
import os
import random
import signal
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
from tests.local.clients import FINAL_STATUSES, LocalServer, make_processing_request, make_training_request
from tests.local.drills.examples import Examples
from tests.local.drills.image import LAYOUT, list_expected_lines
from tests.local.drills.leaks import list_started_plans, list_traces, make_temporary_folder
from tests.local.drills.registrations import Registrations
from tests.local.drills.uploads import UploadClient
from tests.polling import wait_until
from tests.ports import find_free_port

LOST_REASON = "the local server ended while the job ran"
MODEL = "drill"
OBJECT_COUNT = 3
MAX_ROUND_SECONDS = 7.0
"""Maximum time from the start of a round to the end of the server."""


@dataclass
class Job:
    """A job that the server has created."""

    job_type: str
    """Training, Processing or Transform, as in the names of the operations."""
    name: str
    line_count: int
    """Number of lines that each host prints, with pauses."""
    burst_line_count: int
    """Number of lines that each host then prints without pauses."""
    host_count: int
    is_stop_requested: bool = False
    seen_lines: dict[str, list[str]] = field(default_factory=dict)
    """The lines that a client read before the server was killed, by host."""
    seen_status: str = ""
    """The status that a client read before the server was killed."""

    @property
    def plan_name(self) -> str:
        return f"{self.job_type.lower()}-job/{self.name}"


class Drill:
    """Rounds of work, kill, restart and checks on one home."""

    def __init__(self, home: Home, image: str, seed: int, engine: docker.DockerClient) -> None:
        self.home = home
        self._image = image
        self._engine = engine
        self._generator = random.Random(seed)  # noqa: S311  not for secrets
        self._name_count = 0
        self._endpoint = ""
        """The name of the endpoint that must exist; empty until the server has answered its Create request."""
        self._tuning_name = ""
        """The name of the round's tuning job, or an empty string if the server did not answer its Create request."""
        self._jobs: list[Job] = []
        self._examples: Examples
        self._expected_outputs: dict[tuple[str, str], bytes] = {}
        """The output that each completed job must have, by the job's type and name."""
        self._config = Config(port=find_free_port(), runtime="docker")
        self._process = self._launch()
        self.server = self._wait_for_server()
        self._upload_client = UploadClient(self.server.s3, self.server.address.bucket, seed)
        self._initial_temporary_files = list_traces(engine, home).temporary_files
        self._make_model()
        self._registrations = Registrations(self.server.sagemaker)

    # --- the server ---

    def _launch(self) -> subprocess.Popen[bytes]:
        self.home.create()
        command = [sys.executable, "-m", "microjobs_orchestrator.local", *self._config.to_flags()]
        environment = {
            **os.environ,
            "MICROJOBS_HOME": str(self.home.root),
            "TMPDIR": str(make_temporary_folder(self.home)),
        }
        with self.home.server_log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def _wait_for_server(self) -> LocalServer:
        return LocalServer(self.home, wait_until(self._find_server, seconds=60))

    def _find_server(self) -> control.Address | None:
        address = control.find_server(self.home)
        return address if address is not None and address.pid == self._process.pid else None

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _restart(self) -> None:
        """Start the server again. In some rounds, kill it also while it starts."""
        self._process = self._launch()
        while self._generator.random() < 0.3:
            time.sleep(self._generator.uniform(0.3, 2.0))
            self._kill()
            self._process = self._launch()
        self._wait_for_server()

    def stop_and_check(self) -> None:
        """Stop the server as `microjobs local down` does. Check that no container, network, volume or file remains."""
        self._process.terminate()
        self._process.wait(60)
        traces = list_traces(self._engine, self.home)
        assert not traces.containers | traces.networks | traces.volumes | traces.folders | traces.incoming_files, traces

    # --- a round ---

    def run_round(self) -> None:
        self._upload_client.resume()
        self._examples = Examples(self.server, self._make_name("example"))
        kill_time = time.monotonic() + self._generator.uniform(0.0, MAX_ROUND_SECONDS)
        client_thread = threading.Thread(target=self._create_until_killed, daemon=True)
        client_thread.start()
        time.sleep(max(0.0, kill_time - MAX_ROUND_SECONDS / 4 - time.monotonic()))
        self._read_state()
        time.sleep(max(0.0, kill_time - time.monotonic()))
        self._kill()
        client_thread.join()
        self._upload_client.check(self.server.bucket)
        started_plans = list_started_plans(self._engine, self.home)
        self._restart()
        self._upload_client.pause()
        self._upload_client.check(self.server.bucket)
        self._upload_client.abort_all()
        for job in self._jobs:
            self._check_job(job, started_plans)
        self._registrations.check()
        self._check_tuning()
        self._examples.check_and_delete()
        self._check_endpoint()
        self._check_outputs()
        self._check_machine()
        self._jobs, self._tuning_name = [], ""

    def _create_until_killed(self) -> None:
        """Create resources until the server is killed."""
        with suppress(BotoCoreError, ClientError):
            self._create_resources()

    def _create_resources(self) -> None:
        """Create jobs of all kinds on one or two hosts. Sometimes replace the endpoint, or stop one of the jobs."""
        if self._endpoint == "" or self._generator.random() < 0.3:
            self._replace_endpoint()
        self._start_tuning()
        self._examples.create()
        for start_job in (self._start_training, self._start_transform, self._start_processing, self._start_training):
            self._jobs.append(start_job(self._generator.choice((1, 2))))
        if self._generator.random() < 0.4:
            job = self._generator.choice(self._jobs)
            job.is_stop_requested = True  # the stop fails if the job has already ended
            self._call_operation("stop", job)

    def _call_operation(self, verb: str, job: Job) -> dict[str, Any]:
        operation = getattr(self.server.sagemaker, f"{verb}_{job.job_type.lower()}_job")
        response: dict[str, Any] = operation(**{f"{job.job_type}JobName": job.name})
        return response

    def _make_job(self, job_type: str, host_count: int) -> tuple[Job, dict[str, str]]:
        """Return a new job and its hyperparameters, which decide how many lines the job prints."""
        choice = self._generator.choice
        job = Job(
            job_type,
            self._make_name(job_type.lower()),
            line_count=choice((1, 10, 30)),
            burst_line_count=choice((0, 1000, 20_000)),
            host_count=host_count,
        )
        return job, {"lines": str(job.line_count), "burst": str(job.burst_line_count), "pause": "0.1"}

    def _start_training(self, host_count: int) -> Job:
        job, hyperparameters = self._make_job("Training", host_count)
        self.server.sagemaker.create_training_job(
            **self._make_training_request(host_count)
            | {"TrainingJobName": job.name, "HyperParameters": hyperparameters}
            | {"ModelPackageConfig": self._registrations.config}
        )
        return job

    def _start_processing(self, host_count: int) -> Job:
        job, hyperparameters = self._make_job("Processing", host_count)
        uri, path = self.server.uri(f"processed/{job.name}"), str(LAYOUT.processing("output"))
        output = {"OutputName": "weights", "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"}}
        application = {"ImageUri": self._image, "ContainerArguments": ["process", json.dumps(hyperparameters)]}
        self.server.sagemaker.create_processing_job(
            **make_processing_request("", host_count)
            | {"ProcessingJobName": job.name, "AppSpecification": application}
            | {"ProcessingOutputConfig": {"Outputs": [output]}}
        )
        return job

    def _start_transform(self, host_count: int) -> Job:
        """Start a transform job. Its containers print no lines, and answer `ok` to each object."""
        name = self._make_name("transform")
        job = Job("Transform", name, line_count=0, burst_line_count=0, host_count=host_count)
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": self.server.uri("rows/")}}
        self.server.sagemaker.create_transform_job(
            TransformJobName=job.name,
            ModelName=MODEL,
            TransformInput={"DataSource": source, "ContentType": "text/csv"},
            TransformOutput={"S3OutputPath": self.server.uri(f"scores/{job.name}")},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": host_count},
        )
        return job

    def _make_model(self) -> None:
        """Create the model of endpoints and transform jobs, and the objects that transform jobs read."""
        self.server.put({f"rows/{number}": "row" for number in range(OBJECT_COUNT)})
        self.server.sagemaker.create_model(
            ModelName=MODEL, PrimaryContainer={"Image": self._image}, ExecutionRoleArn=self.server.address.role_arn
        )

    def _make_training_request(self, host_count: int = 1) -> dict[str, Any]:
        request = make_training_request(self.server, "", host_count)
        metrics = [{"Name": "val_loss", "Regex": r"val_loss: (\S+)"}]
        algorithm = {"TrainingImage": self._image, "TrainingInputMode": "File", "MetricDefinitions": metrics}
        return request | {"AlgorithmSpecification": algorithm}

    def _start_tuning(self) -> None:
        definition = self._make_training_request()
        del definition["TrainingJobName"]
        definition["StaticHyperParameters"] = {"burst": "10", "pause": "0.1"}
        ranges = {"IntegerParameterRanges": [{"Name": "lines", "MinValue": "1", "MaxValue": "10"}]}
        name = self._make_name("tune")
        self.server.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig={
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"},
                "ResourceLimits": {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 3},
                "ParameterRanges": ranges,
            },
            TrainingJobDefinition=definition,
        )
        self._tuning_name = name

    def _replace_endpoint(self) -> None:
        sagemaker = self.server.sagemaker
        if self._endpoint:
            old_endpoint, self._endpoint = self._endpoint, ""  # the server may be killed before it answers
            sagemaker.delete_endpoint(EndpointName=old_endpoint)
        name = self._make_name("endpoint")
        variant = {"VariantName": "main", "ModelName": MODEL, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self._endpoint = name

    def _make_name(self, prefix: str) -> str:
        self._name_count += 1
        return f"{prefix}-{self._name_count}"

    def _read_state(self) -> None:
        """Read the lines and the status of each job before the server is killed."""
        for job in self._jobs:
            job.seen_lines = self.server.read_logs(f"{job.job_type}Jobs", job.name)
            job.seen_status = str(self._call_operation("describe", job)[f"{job.job_type}JobStatus"])

    # --- checks ---

    def _check_job(self, job: Job, started_plans: set[str]) -> None:
        description = wait_until(
            lambda: self._call_operation("describe", job),
            lambda description: description[f"{job.job_type}JobStatus"] in FINAL_STATUSES,
        )
        status = description[f"{job.job_type}JobStatus"]
        details = f"{job}, started: {job.plan_name in started_plans}, description: {description}"
        if job.seen_status in FINAL_STATUSES:
            assert status == job.seen_status, details
        if status == "Failed":
            assert LOST_REASON in description["FailureReason"], details
            assert job.plan_name not in started_plans, details
        elif status == "Stopped":
            assert job.is_stop_requested, details
        output = self._read_complete_logs(job)
        for host, lines in job.seen_lines.items():
            assert output[host][: len(lines)] == lines, details
        expected = [] if job.job_type == "Transform" else list_expected_lines(job.line_count, job.burst_line_count)
        for lines in output.values():
            assert lines == expected[: len(lines)], (details, lines[:50], lines[-5:])
        if status == "Completed":
            if job.job_type == "Training":
                self._registrations.check_job(description)
            assert [len(lines) for lines in output.values()] == [len(expected)] * job.host_count, details
            self._expected_outputs[job.job_type, job.name] = (
                b"ok" * OBJECT_COUNT if not expected else b"%d" % job.line_count * 1000
            )

    def _read_complete_logs(self, job: Job) -> dict[str, list[str]]:
        streams = self.server.home.logs.glob(f"aws/sagemaker/{job.job_type}Jobs/{job.name}/*")
        return {
            path.name.rpartition("-")[0]: [line.partition(" ")[2] for line in path.read_text().splitlines()]
            for path in streams
        }

    def _check_tuning(self) -> None:
        if self._tuning_name == "":
            return
        describe = self.server.sagemaker.describe_hyper_parameter_tuning_job
        description = wait_until(
            lambda: describe(HyperParameterTuningJobName=self._tuning_name),
            lambda job: job["HyperParameterTuningJobStatus"] in FINAL_STATUSES,
        )
        pages = self.server.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        trials = list(pages.paginate(HyperParameterTuningJobName=self._tuning_name).search("TrainingJobSummaries[]"))
        assert len(trials) == 3, description
        for trial in trials:
            job = self.server.describe_training(trial["TrainingJobName"])
            assert trial["TrainingJobStatus"] == "Completed" or LOST_REASON in job["FailureReason"], job
            if trial["TrainingJobStatus"] == "Completed":
                line_count = int(trial["TunedHyperParameters"]["lines"])
                self._expected_outputs["Training", trial["TrainingJobName"]] = b"%d" % line_count * 1000
        any_completed = any(trial["TrainingJobStatus"] == "Completed" for trial in trials)
        assert description["HyperParameterTuningJobStatus"] == ("Completed" if any_completed else "Failed"), description

    def _check_endpoint(self) -> None:
        """Check that the endpoint answers. Delete endpoints whose Create request had no response."""
        sagemaker = self.server.sagemaker
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
        runtime = self.server.client("sagemaker-runtime")
        assert runtime.invoke_endpoint(EndpointName=self._endpoint, Body=b"?")["Body"].read() == b"ok"

    def _check_outputs(self) -> None:
        """Check that the outputs of all completed jobs are still complete."""
        for (job_type, name), expected in self._expected_outputs.items():
            job = Job(job_type, name, line_count=0, burst_line_count=0, host_count=0)
            description = self._call_operation("describe", job)
            assert description[f"{job_type}JobStatus"] == "Completed", description
            assert self._read_output(job_type, name) == expected, name

    def _read_output(self, job_type: str, name: str) -> bytes:
        if job_type == "Processing":
            return (self.server.bucket / f"processed/{name}/weights").read_bytes()
        if job_type == "Transform":
            return b"".join((self.server.bucket / f"scores/{name}/{n}.out").read_bytes() for n in range(OBJECT_COUNT))
        with tarfile.open(self.server.bucket / f"models/{name}/output/model.tar.gz") as archive:
            file = archive.extractfile("weights")
            assert file is not None
            return file.read()

    def _check_machine(self) -> None:
        """Check that only the endpoint has containers, networks, volumes and files."""
        endpoint_prefix = f"endpoint/{self._endpoint}/"

        def exclude_endpoint(names: Sequence[str] | frozenset[str], prefix: str = endpoint_prefix) -> list[str]:
            return [name for name in names if not name.startswith(prefix)]

        def list_leftovers() -> list[str]:
            traces = list_traces(self._engine, self.home)
            plans = (
                exclude_endpoint(traces.containers)
                + exclude_endpoint(traces.networks)
                + exclude_endpoint(traces.volumes)
            )
            folders = exclude_endpoint(traces.folders, endpoint_prefix.replace("/", "-"))
            return (
                plans
                + folders
                + sorted(traces.incoming_files)
                + sorted(traces.temporary_files - self._initial_temporary_files)
            )

        wait_until(list_leftovers, lambda names: names == [], seconds=60)
        assert list((self.home.objects / "uploads").iterdir()) == []

    def clean_up(self) -> None:
        """Stop the server and the uploads after a failure."""
        with suppress(OSError, BotoCoreError):
            self._upload_client.pause()
            self._process.terminate()
            self._process.wait(60)
