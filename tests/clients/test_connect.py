"""Tests of `microjobs.local.connect()` in the environments of the SageMaker SDK, as in a notebook."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.environments import install_client_programs
from tests.conftest import REPOSITORY
from tests.local.clients import LocalServer

pytestmark = pytest.mark.slow

IMPORTS = {"sdk": "from sagemaker import Session", "sdk3": "from sagemaker.core.helper.session_helper import Session"}
NOTEBOOK = """
import sys
import microjobs.local
server = microjobs.local.connect(sys.argv[1])
{session_import}
session = Session()
session.upload_string_as_file_body("content", session.default_bucket(), "{key}")
print(session.default_bucket() == server.bucket)
print(session.sagemaker_client.list_models()["Models"])
"""


@pytest.mark.parametrize("client", IMPORTS)
def test_sdk_uses_the_connected_server(client: str, process_server: LocalServer, tmp_path: Path) -> None:
    notebook, key = tmp_path / "notebook.py", f"from-{client}"
    notebook.write_text(NOTEBOOK.format(session_import=IMPORTS[client], key=key))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),  # this folder has neither settings nor credentials of the user
        "PYTHONPATH": f"{REPOSITORY / 'shared'}:{REPOSITORY}",
    }
    command = [
        str(install_client_programs(client) / "python"),
        "-W",
        "ignore",
        str(notebook),
        str(process_server.home.root),
    ]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-2:] == ["True", "[]"], result.stderr[-4000:]
    assert (process_server.bucket / key).read_text() == "content"
