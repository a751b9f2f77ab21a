"""The examples in the READMEs of the images work in an empty folder."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import JOBS, make_image_name
from tests.documented import Snippet, find_code_blocks, find_inline_commands

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

RESULTS = {
    "preprocess": ("processing/train/scaler.json", "processing/test/x_test.npy"),
    "train-pytorch": ("model/model.pth", "model/model.onnx", "output/data/learning-curve.png"),
    "train-tensorflow": ("model/1/saved_model.pb", "model/model.onnx", "output/data/learning-curve.png"),
    "batch-score": ("processing/batch/score-report.txt", "processing/batch/predictions.npy"),
}
"""Files in the folder `root` after the examples. `tests/unit/serve/test_serve_readme.py` runs the examples of serve."""


def find_readme(image: str) -> Path:
    return Path("containers", image, "README.md")


def run_snippet(snippet: Snippet, folder: Path) -> None:
    """Run a snippet with the images under test."""
    text = re.sub(r"microjobs/([a-z-]+):dev", lambda match: make_image_name(match[1]), snippet.text)
    result = subprocess.run(["bash", "-euc", text], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{snippet}: {result.stdout[-2000:]}{result.stderr[-2000:]}"


@pytest.mark.parametrize("image", RESULTS)
def test_examples_run_in_order(image: str, tmp_path: Path) -> None:
    for snippet in (*find_code_blocks(find_readme(image)), *find_inline_commands(find_readme(image))):
        if not snippet.text.startswith("make "):
            run_snippet(snippet, tmp_path)
    assert [name for name in RESULTS[image] if not (tmp_path / "root" / name).is_file()] == []


def test_all_readmes_with_examples_are_tested() -> None:
    images_with_examples = {
        image for image in JOBS if any("docker run" in snippet.text for snippet in find_code_blocks(find_readme(image)))
    }
    assert images_with_examples - {"serve"} == set(RESULTS)
