"""Tests of typical programs for SDK versions from 2022 until today, in one virtual environment per version."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from microjobs.contract import Layout
from tests.bundles import write_linear_bundle
from tests.clients.environments import run_program
from tests.conftest import build_image_from_job, make_image_name
from tests.local.clients import LocalServer

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAYOUT = Layout()
TRAIN_SCRIPT = f"#!/bin/sh\\necho loss: 0.5\\ncp {LAYOUT.channel('model')}/* {LAYOUT.model}\\n"
"""A program `train` that copies the model from its channel."""


@pytest.fixture(scope="module")
def train_image() -> Iterator[str]:
    """An image with a fast program `train`. It also has a `pip3`, because version 3 of the SDK requires one."""
    write_command = f"path=$(command -v train) && rm $path && printf '{TRAIN_SCRIPT}' > $path && chmod 755 $path"
    instructions = ("USER root", "ENTRYPOINT []", f"RUN {write_command}", "RUN ln -s /bin/true /usr/bin/pip3")
    with build_image_from_job("serve", *instructions) as image:
        yield image


@pytest.fixture
def bundle(server: LocalServer, tmp_path: Path) -> None:
    """Put a model that returns the sum of its three features into the bucket."""
    write_linear_bundle(tmp_path / "bundle", [1.0] * 3, 0.0)
    folder = server.bucket / "bundle"
    folder.mkdir(exist_ok=True)
    for path in (tmp_path / "bundle").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


@pytest.mark.usefixtures("bundle")
@pytest.mark.parametrize(("client", "version"), [("sdk290", "2.90.0"), ("sdk", "2.257.7")])
def test_program_for_sdk_v2_runs(
    client: str, version: str, server: LocalServer, train_image: str, tmp_path: Path
) -> None:
    lines = run_program(
        client, server, tmp_path, "typical_v2.py", train_image, make_image_name("serve"), server.address.bucket
    )
    assert json.loads(lines[-1]) == {
        "version": version,
        "attached": True,
        "loss": 0.5,
        "tuned": ["loss", True],
        "trials": 2,
        "predicted": [["6.0"]],
        "transformed": "6.0\n15.0\n",
        "processed": ["typical-v2/copy/rows.csv"],
    }
    note = "ProfilerRuleConfigurations has no effect: the local server has no profiler"
    assert any(note in line for line in lines) == (client == "sdk290")


@pytest.mark.usefixtures("bundle")
def test_program_for_sdk_v3_runs(server: LocalServer, train_image: str, tmp_path: Path) -> None:
    lines = run_program(
        "sdk3", server, tmp_path, "typical_v3.py", train_image, make_image_name("serve"), server.address.bucket
    )
    assert json.loads(lines[-1]) == {
        "bucket": server.address.bucket,
        "trained": "Completed",
        "scripted": "Completed",
        "tuned": True,
        "predicted": "6.0\n",
        "transformed": "6.0\n15.0\n",
        "processed": ["typical-v3/copy/rows.csv"],
    }
