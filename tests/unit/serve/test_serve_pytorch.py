"""Tests of the search for models in the image train-pytorch. They do not need PyTorch.

The tests in tests/images/test_hosting.py run models of PyTorch.
"""

import zipfile
from pathlib import Path

import pytest

from microjobs.hosting.default_handlers import decode_array, decode_rows
from microjobs_train_pytorch.model_source import choose_defaults, find_torchscript
from tests.conftest import CONTAINERS
from tests.unit.serve.conftest import run_server

JOB = str(CONTAINERS / "train-pytorch")


def write_archive(path: Path, *names: str) -> None:
    """Write a file with the structure of PyTorch's archives. Archives of TorchScript have constants.pkl and code."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"{path.stem}/{name}", b"")


def test_bundle_is_served_as_in_the_image_serve(root: Path) -> None:
    with run_server(root, MICROJOBS_JOB=JOB) as server:
        server.wait_until_ready()
        assert server.invoke('{"instances": [[3, 4, 7]], "signature_name": "raw"}').json == {"predictions": [[3.0]]}
        assert server.invoke("1,2,3", "text/csv").body == b"6.0\n"


def test_torchscript_archives_differ_from_state_dicts(tmp_path: Path) -> None:
    write_archive(tmp_path / "weights.pth", "data.pkl", "version")
    (tmp_path / "other.pt").write_bytes(b"a pickle of an old version")
    assert find_torchscript(tmp_path) is None
    write_archive(tmp_path / "net.pth", "data.pkl", "constants.pkl", "code/net.py")
    assert find_torchscript(tmp_path) == tmp_path / "net.pth"
    write_archive(tmp_path / "second.pt", "data.pkl", "constants.pkl", "code/net.py")
    assert find_torchscript(tmp_path) is None, "two archives, and none has a usual name"
    write_archive(tmp_path / "model.pth", "data.pkl", "constants.pkl", "code/net.py")
    assert find_torchscript(tmp_path) == tmp_path / "model.pth"


def test_program_without_model_fn_gets_the_bundle(root: Path) -> None:
    # A user's predict_fn receives arrays as AWS's toolkit decodes them; the bundle's predict_fn receives rows.
    defaults = choose_defaults({"predict_fn"}, root / "model")
    assert defaults.input_fn is decode_array
    assert defaults.model_fn(str(root / "model")).features == 3
    assert choose_defaults({"input_fn"}, root / "model").input_fn is decode_rows


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        (
            "weights.pth",
            "save a TorchScript archive (torch.jit.save) as model.pt, or add code/inference.py with model_fn",
        ),
        ("code/serve.py", "code/ has serve.py: name the program inference.py, or set SAGEMAKER_PROGRAM"),
    ],
)
def test_missing_model_error_names_the_files_in_the_folder(tmp_path: Path, file: str, remedy: str) -> None:
    path = tmp_path / "model" / file
    path.parent.mkdir(parents=True)
    path.write_text("x")
    with run_server(tmp_path, MICROJOBS_JOB=JOB) as server:
        assert server.wait() == 2
    failure = server.failure or ""
    assert (
        f"has no TorchScript archive, code/inference.py or bundle of the train jobs. It contains {file[:4]}" in failure
    )
    assert remedy in failure
