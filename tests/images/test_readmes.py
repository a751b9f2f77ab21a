"""The examples in the READMEs of the images work in an empty folder."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import JOBS, image_name
from tests.documented import Snippet, code_blocks, inline_commands

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

RESULTS = {
    "preprocess": ("processing/train/scaler.json", "processing/test/x_test.npy"),
    "train-pytorch": ("model/model.pth", "model/model.onnx", "output/data/learning-curve.png"),
    "train-tensorflow": ("model/1/saved_model.pb", "model/model.onnx", "output/data/learning-curve.png"),
    "batch-score": ("processing/batch/score-report.txt", "processing/batch/predictions.npy"),
}
"""Files in the folder `root` after the examples. The tests of serve run the examples of its README."""


def find_readme(job: str) -> Path:
    return Path("containers", job, "README.md")


def run(snippet: Snippet, folder: Path) -> None:
    """Run a snippet with the images under test."""
    text = re.sub(r"microjobs/([a-z-]+):dev", lambda match: image_name(match[1]), snippet.text)
    done = subprocess.run(["bash", "-euc", text], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{snippet}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("job", RESULTS)
def test_examples_run_in_order(job: str, tmp_path: Path) -> None:
    for snippet in (*code_blocks(find_readme(job)), *inline_commands(find_readme(job))):
        if not snippet.text.startswith("make "):
            run(snippet, tmp_path)
    assert [name for name in RESULTS[job] if not (tmp_path / "root" / name).is_file()] == []


def test_all_readmes_with_examples_are_tested() -> None:
    with_examples = {
        job for job in JOBS if any("docker run" in snippet.text for snippet in code_blocks(find_readme(job)))
    }
    assert with_examples - {"serve"} == set(RESULTS)
