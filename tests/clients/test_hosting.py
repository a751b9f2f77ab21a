"""Tests of all kinds of hosting in containers, with boto3 and with versions 2 and 3 of the SageMaker SDK."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import run_program
from tests.clients.hosting_kinds import CLIENT_COUNT, KINDS, ROW, SHADOW, VARIANT, HostingKind
from tests.conftest import make_image_name
from tests.local.clients import LocalServer
from tests.local.resources.examples.models import put_linear_model
from tests.local.test_inference_pipelines import SCALE_PROGRAM

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PREFIX = "kinds-of-hosting"
WORDS_PROGRAM = """
import time

def model_fn(folder):
    return {words!r}

def input_fn(body, content_type):
    return body

def predict_fn(body, words):
    for word in words:
        time.sleep(0.05)
        yield word + " "
"""
NO_RETRIES = {"AWS_MAX_ATTEMPTS": "1"}
"""Variables with which clients repeat no request, so that the test notices each lost request."""


@pytest.fixture(scope="module")
def prefix_uri(server: LocalServer) -> str:
    """The S3 prefix of the archives that the programs deploy."""
    for weight, name in ((1.0, "one"), (2.0, "two")):
        put_linear_model(server, f"{PREFIX}/{name}.tar.gz", weight)
        put_linear_model(server, f"{PREFIX}/models-{weight:g}/model.tar.gz", weight)
    programs = {"scale": SCALE_PROGRAM, "words-1": WORDS_PROGRAM.format(words=["one", "word"])}
    for name, program in {**programs, "words-2": WORDS_PROGRAM.format(words=["two", "words"])}.items():
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            member = tarfile.TarInfo("code/inference.py")
            member.size = len(program)
            tar.addfile(member, io.BytesIO(program.encode()))
        key = f"{PREFIX}/{name}.tar.gz"
        server.s3.put_object(Bucket=server.address.bucket, Key=key, Body=archive.getvalue())
    server.put({f"{PREFIX}/row.csv": ROW.decode()})
    return server.uri(PREFIX)


@pytest.mark.parametrize(
    ("client", "program"), [("boto3", "hosting_boto3.py"), ("sdk", "hosting_v2.py"), ("sdk3", "hosting_v3.py")]
)
def test_program_updates_each_kind_under_load(
    server: LocalServer, prefix_uri: str, client: str, program: str, tmp_path: Path
) -> None:
    lines = run_program(client, server, tmp_path, program, make_image_name("serve"), prefix_uri, settings=NO_RETRIES)
    assert json.loads(lines[-1]) == {kind.name: make_expectation(kind) for kind in KINDS}


def make_expectation(kind: HostingKind) -> Mapping[str, Any]:
    """Return the findings that a program prints about a kind of hosting if all requests succeed.

    No request is lost, each request is counted and captured once, and no old response follows a new response.
    """
    outputs = {VARIANT: sorted(kind.responses), **({SHADOW: sorted(kind.responses)} if kind.has_shadow else {})}
    if kind.operation == "InvokeEndpointWithResponseStream":
        outputs[VARIANT] = [""]  # data capture stores no response streams
    return {
        "responses": [list(kind.responses)] * CLIENT_COUNT,
        "uncounted": 0,
        "uncaptured": 0 if kind.supports_capture else None,
        "outputs": outputs if kind.supports_capture else None,
    }
