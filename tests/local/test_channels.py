"""Tests of channels of training jobs: files, read-only files, pipes and manifests."""

import base64
import gzip
import hashlib
import json
import os
import re
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs.contract import Layout
from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.config import Config
from tests.local.clients import ROOT, LocalServer, make_channel, make_processing_input, run_server
from tests.polling import wait_until


def make_channel_with_members(name: str, uri: str, **members: Any) -> dict[str, Any]:
    """Return a channel. `members` may also contain members of its data source."""
    channel = make_channel(name, uri, members.pop("S3DataDistributionType", "FullyReplicated"))
    source = channel["DataSource"]["S3DataSource"]
    source |= {member: members.pop(member) for member in ("S3DataType", "AttributeNames") if member in members}
    return channel | members


def read_output(server: LocalServer, name: str) -> str:
    """Wait until a job has completed; return the content of its file `model/read`."""
    job = server.wait_for_end(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    return server.read_archive(name)["read"]


READ_EPOCHS_SCRIPT = (
    f"cd {ROOT}/input/data; "
    "for epoch in 0 1 2; do until [ -p train_$epoch ]; do sleep 0.02; done; cat train_$epoch >> ../../model/read; "
    "echo '|' >> ../../model/read; done"
)
"""Reads three epochs of the channel `train`, and writes a line with `|` after each."""


def test_pipe_contains_all_objects_in_each_epoch(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"pipe/b": "second", "pipe/a": "first,", "pipe/deep/c": ".\n"})
    name = any_runtime_server.start_training(
        READ_EPOCHS_SCRIPT,
        InputDataConfig=[make_channel_with_members("train", any_runtime_server.uri("pipe/"), InputMode="Pipe")],
    )
    assert read_output(any_runtime_server, name) == "first,second.\n|\n" * 3


def test_input_folders_can_be_renamed(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"renamed/old/a": "content", "renamed/b": "other"})
    rename = 'python -c \'import os; os.rename("old", "new")\''  # `mv` would copy if it cannot rename
    script = f"cd {ROOT}/input/data/train && {rename} && echo more >> new/a && cat new/a > ../../../model/read"
    name = any_runtime_server.start_training(
        script, InputDataConfig=[make_channel_with_members("train", any_runtime_server.uri("renamed/"))]
    )
    assert read_output(any_runtime_server, name) == "contentmore\n"
    assert (any_runtime_server.bucket / "renamed/old/a").read_text() == "content"


def test_pipe_contains_a_complete_large_object(any_runtime_server: LocalServer) -> None:
    content = bytes(range(256)) * (1 << 15)  # the content is larger than all buffers together
    any_runtime_server.s3.put_object(Bucket=any_runtime_server.address.bucket, Key="large/x", Body=content)
    script = f"cd {ROOT} && sha256sum < input/data/train_0 > model/read"
    name = any_runtime_server.start_training(
        script, InputDataConfig=[make_channel_with_members("train", any_runtime_server.uri("large/"), InputMode="Pipe")]
    )
    assert read_output(any_runtime_server, name).split()[0] == hashlib.sha256(content).hexdigest()


def test_reader_that_closes_early_gets_the_next_epoch(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"early/a": "0123456789" * 100_000})
    script = READ_EPOCHS_SCRIPT.replace("cat train_$epoch", "head -c 4 train_$epoch")
    name = any_runtime_server.start_training(
        script, InputDataConfig=[make_channel_with_members("train", any_runtime_server.uri("early/"), InputMode="Pipe")]
    )
    assert read_output(any_runtime_server, name) == "0123|\n" * 3


def test_job_completes_with_unread_pipes(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"unread/a": "x" * 1_000_000})
    pipe = make_channel_with_members("train", any_runtime_server.uri("unread/"), InputMode="Pipe")
    job = any_runtime_server.train(f"cd {ROOT}; cp input/config/inputdataconfig.json model/", InputDataConfig=[pipe])
    assert job["TrainingJobStatus"] == "Completed"
    config = json.loads(any_runtime_server.read_archive(job["TrainingJobName"])["inputdataconfig.json"])
    assert config["train"]["TrainingInputMode"] == "Pipe"


def test_pipe_decompresses_gzip_and_writes_recordio(process_server: LocalServer) -> None:
    bucket = process_server.address.bucket
    for key, content in (("zipped/a", b"12345"), ("zipped/b", b"")):
        process_server.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(content))
    pipe = make_channel_with_members(
        "train", process_server.uri("zipped/"), InputMode="Pipe", CompressionType="Gzip", RecordWrapperType="RecordIO"
    )
    name = process_server.start_training(
        f"cd {ROOT}; base64 -w0 input/data/train_0 > model/read", InputDataConfig=[pipe]
    )
    first_record = struct.pack("<II", 0xCED7230A, 5) + b"12345\0\0\0"
    assert base64.b64decode(read_output(process_server, name)) == first_record + struct.pack("<II", 0xCED7230A, 0)


def test_shuffle_order_differs_in_each_epoch(process_server: LocalServer) -> None:
    process_server.put({f"shuffled/{number}": str(number) for number in range(8)})

    def read_epochs(seed: int) -> list[str]:
        pipe = make_channel_with_members(
            "train", process_server.uri("shuffled/"), InputMode="Pipe", ShuffleConfig={"Seed": seed}
        )
        return read_output(
            process_server, process_server.start_training(READ_EPOCHS_SCRIPT, InputDataConfig=[pipe])
        ).split("|\n")[:3]

    epochs = read_epochs(1)
    assert len(set(epochs)) == 3
    assert {"".join(sorted(epoch)) for epoch in epochs} == {"01234567"}
    assert read_epochs(1) == epochs != read_epochs(2)


def test_pipes_of_hosts_contain_shards(process_server: LocalServer) -> None:
    process_server.put({f"sharded/{number}": str(number) for number in range(5)})
    pipe = make_channel_with_members(
        "train", process_server.uri("sharded/"), InputMode="Pipe", S3DataDistributionType="ShardedByS3Key"
    )
    script = f"cd {ROOT}; host=$(grep -o 'host\": \"algo-.' input/config/resourceconfig.json | tail -c 7); "
    name = process_server.start_training(
        f"{script} cat input/data/train_0 > model/$host", instances=2, InputDataConfig=[pipe]
    )
    assert process_server.wait_for_end(name)["TrainingJobStatus"] == "Completed"
    assert process_server.read_archive(name) == {"algo-1": "024", "algo-2": "13"}


def test_attributes_of_an_augmented_manifest_are_records(process_server: LocalServer) -> None:
    lines = [{"image-ref": process_server.uri(f"images/{name}"), "class": number} for number, name in enumerate("ab")]
    process_server.put(
        {"images/a": "A", "images/b": "B", "list.manifest": "\n".join(json.dumps({**line, "x": 1}) for line in lines)}
    )
    pipe = make_channel_with_members(
        "train", process_server.uri("list.manifest"), InputMode="Pipe",
        S3DataType="AugmentedManifestFile", AttributeNames=["class", "image-ref"],
    )  # fmt: skip
    assert (
        read_output(process_server, process_server.start_training(READ_EPOCHS_SCRIPT, InputDataConfig=[pipe]))
        == "0A1B|\n" * 3
    )


READ_FILES_SCRIPT = f"cd {ROOT}/input/data && find train -type f | sort | xargs cat /dev/null > ../../model/read"
"""Concatenates the files of the channel `train`, sorted by their paths."""


def put_manifest(server: LocalServer, *paths: str) -> str:
    """Upload objects below `listed/` and a manifest of some of them; return the manifest's URI."""
    server.put({"listed/a": "A", "listed/deep/b": "B", "listed/c": "C"})
    server.put({"files.manifest": json.dumps([{"prefix": server.uri("listed/")}, *paths])})
    return server.uri("files.manifest")


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_channel_contains_files_of_a_manifest(process_server: LocalServer, mode: str) -> None:
    uri = put_manifest(process_server, "deep/b", "a")
    files = make_channel_with_members("train", uri, InputMode=mode, S3DataType="ManifestFile")
    assert (
        read_output(process_server, process_server.start_training(READ_FILES_SCRIPT, InputDataConfig=[files])) == "AB"
    )


def test_processing_input_contains_files_of_a_manifest(process_server: LocalServer) -> None:
    path = str(Layout().processing("input"))
    processing_input_definition = make_processing_input("input", put_manifest(process_server, "deep/b"), path)
    processing_input_definition["S3Input"]["S3DataType"] = "ManifestFile"
    job = process_server.process(f"cat {ROOT}/processing/input/deep/b", ProcessingInputs=[processing_input_definition])
    assert job["ProcessingJobStatus"] == "Completed"
    assert process_server.read_logs("ProcessingJobs", job["ProcessingJobName"]) == {"algo-1": ["B"]}


@pytest.mark.engine
def test_fast_file_inputs_are_read_only(server: LocalServer) -> None:
    server.put({"fast/a": "original"})
    fast_channel = make_channel_with_members("train", server.uri("fast/"), InputMode="FastFile")
    script = f"cd {ROOT}/input; cat data/train/a config/inputdataconfig.json > ../model/read; touch data/train/b"
    name = server.start_training(f"{script} || exit 0; exit 1", InputDataConfig=[fast_channel])
    assert read_output(server, name).startswith('original{"train": {"TrainingInputMode": "File"')


# --- errors ---


def train_and_fail(server: LocalServer, script: str, failing_channel: dict[str, Any]) -> str:
    """Run a training job that must fail because of its channel; return the reason."""
    job = server.train(script, InputDataConfig=[failing_channel])
    assert job["TrainingJobStatus"] == "Failed"
    return str(job["FailureReason"])


def test_invalid_gzip_in_a_pipe_fails_the_job(any_runtime_server: LocalServer) -> None:
    any_runtime_server.put({"plain/a": "not compressed"})
    pipe = make_channel_with_members(
        "train", any_runtime_server.uri("plain/"), InputMode="Pipe", CompressionType="Gzip"
    )
    reason = train_and_fail(any_runtime_server, f"cat {ROOT}/input/data/train_0; sleep 60", pipe)
    assert reason.startswith("ClientError: Data download failed: ")
    assert "a is not a gzip file" in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "it is not JSON"),
        ('{"prefix": "s3://b/"}', "it must be a JSON array"),
        ('[{"prefix": "s3://nowhere/"}, "x"]', "s3://nowhere/x: "),
    ],
)
def test_invalid_manifest_fails_the_job(process_server: LocalServer, content: str, message: str) -> None:
    process_server.put({"wrong.manifest": content})
    reason = train_and_fail(
        process_server,
        "true",
        make_channel_with_members("train", process_server.uri("wrong.manifest"), S3DataType="ManifestFile"),
    )
    assert reason.startswith("ClientError: Data download failed: ")
    assert message in reason


def test_missing_attribute_fails_the_job(process_server: LocalServer) -> None:
    process_server.put({"lines.manifest": '{"a": 1}\n{"b": 1}\n'})
    pipe = make_channel_with_members(
        "train", process_server.uri("lines.manifest"), InputMode="Pipe",
        S3DataType="AugmentedManifestFile", AttributeNames=["a"],
    )  # fmt: skip
    assert "line 2 has no attribute 'a'" in train_and_fail(process_server, "true", pipe)


@pytest.mark.engine
def test_job_with_pipes_is_not_resumed_by_another_server(tmp_path: Path) -> None:
    """The pipe ends with the first server, so the job cannot know that its data are incomplete."""
    with run_server(tmp_path / "home", runtime="docker") as server:
        server.put({"cut/a": "x" * 10_000_000})
        pipe = make_channel_with_members("train", server.uri("cut/"), InputMode="Pipe")
        script = f"exec 3< {ROOT}/input/data/train_0; echo ready; sleep 2; cat <&3 | wc -c"
        name = server.start_training(script, InputDataConfig=[pipe])
        server.wait_for_log(name, "ready")
        os.kill(server.address.pid, signal.SIGKILL)
        wait_until(lambda: control.find_server(server.home), lambda address: address is None)
        next_server = LocalServer(server.home, control.start(server.home, Config(port=0, runtime="docker")))
        assert next_server.wait_for_end(name)["FailureReason"].startswith("InternalServerError: the local server ended")


AUGMENTED_MANIFEST = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}
INVALID_MEMBERS = [
    (AUGMENTED_MANIFEST, "can only be used if the Channel's input mode is Pipe"),
    ({"S3DataType": "AugmentedManifestFile", "InputMode": "Pipe"}, "AttributeNames is required"),
    ({"AttributeNames": ["a"]}, "AttributeNames can only be used with"),
    ({"CompressionType": "Gzip"}, "can only be used if the input mode is Pipe"),
    ({"RecordWrapperType": "RecordIO", "InputMode": "FastFile"}, "can only be used if the input mode is Pipe"),
    ({**AUGMENTED_MANIFEST, "InputMode": "Pipe", "CompressionType": "Gzip"}, "CompressionType Gzip cannot be used"),
    ({"InputMode": "FastFile"}, "must be a whole folder, but the key wrong-too/b also begins with it"),
    ({"S3DataType": "Converse"}, "Not supported here"),
]


@pytest.mark.parametrize(("members", "message"), INVALID_MEMBERS)
def test_invalid_members_of_a_channel_raise(process_server: LocalServer, members: dict[str, Any], message: str) -> None:
    process_server.put({"wrong/a": "", "wrong-too/b": ""})
    with pytest.raises(ClientError, match=re.escape(message)):
        process_server.start_training(
            "true", InputDataConfig=[make_channel_with_members("train", process_server.uri("wrong"), **members)]
        )


def test_missing_manifest_raises(process_server: LocalServer) -> None:
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        process_server.start_training(
            "true",
            InputDataConfig=[make_channel_with_members("train", process_server.uri("none"), S3DataType="ManifestFile")],
        )
