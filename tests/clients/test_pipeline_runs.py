"""Pipelines that the SDKs' regular classes define and start, executed in containers."""

import re
from pathlib import Path

import pytest

from tests.clients.environments import run_program
from tests.conftest import REPOSITORY, image_name
from tests.local.clients import LocalServer

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PAGE = REPOSITORY / "docs" / "using" / "pipelines.md"


def test_program_of_the_page_succeeds(local: LocalServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "pipeline.py"
    script.write_text(re.sub(r"microjobs/([a-z-]+):dev", lambda match: image_name(match[1]), program))
    assert run_program("sdk3", local, tmp_path, str(script))[-1] == "Succeeded"
    (package,) = local.sagemaker.list_model_packages(ModelPackageGroupName="line")["ModelPackageSummaryList"]
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
