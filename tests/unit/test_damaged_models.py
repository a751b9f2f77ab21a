"""Damaged and harmful models: each model predicts, or causes an error of one sentence when it is loaded. No files
remain.

MICROJOBS_EXAMPLES sets the number of generated archives and of generated model folders.
"""

import gzip
import io
import json
import os
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from microjobs import archives, bundle
from microjobs.errors import UserError
from microjobs.predictor import Predictor
from tests.bundles import write_linear_bundle

MAX_EXAMPLES = int(os.environ.get("MICROJOBS_EXAMPLES", "100"))
generated_examples = settings(max_examples=MAX_EXAMPLES, suppress_health_check=list(HealthCheck))


def make_valid_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_linear_bundle(Path(folder), [1.0, 2.0], 0.5)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


VALID_FILES = make_valid_files()

# --- harmful archives ---

PATH_PARTS = st.sampled_from(["a", "b", "..", ".", "", "/", "model.onnx", "1", "x" * 300, "\0", "é", "\udcff", "a\nb"])
PATHS = st.one_of(
    st.lists(PATH_PARTS, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["a/" * 70 + "b", "a/" * 3000 + "b", "/etc/x", "../outside", "model.onnx/x"]),
)
MEMBER_TYPES = [bytes([member_type]) for member_type in b"0123456789SLKxgX\0"]


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(PATHS))
    info.type, info.linkname = draw(st.sampled_from(MEMBER_TYPES)), draw(PATHS)
    info.mode = draw(st.sampled_from([0o644, 0o4755, 0]))
    content = draw(st.binary(max_size=30))
    info.size = draw(st.sampled_from([len(content), len(content), 0, 1 << 20, 8**11 - 1, 1 << 62]))
    return info, content


@st.composite
def archive_files(draw: st.DrawFn) -> bytes:
    """Return an archive with harmful members, with or without valid files. It may be damaged, before or after
    compression."""
    buffer = io.BytesIO()
    harmful_members = draw(st.lists(members(), max_size=4))
    with tarfile.open(
        fileobj=buffer, mode="w", format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    ) as tar:
        if draw(st.booleans()):
            add_files(tar, VALID_FILES)
        for info, content in harmful_members:
            tar.addfile(info)
            buffer.write(content.ljust(512, b"\0"))
    tar_content = draw(possibly_damaged_bytes(buffer.getvalue()))
    return draw(possibly_damaged_bytes(gzip.compress(tar_content, mtime=0)))


def add_files(tar: tarfile.TarFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


@st.composite
def possibly_damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return the content, or a copy: some bytes may be changed, added or removed, and the end may be missing."""
    if draw(st.booleans()):
        return content
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        offset = draw(st.integers(0, len(changed) - 1))
        changed[offset : offset + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(changed[: draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))])


def load(folder: Path) -> Predictor | None:
    """Load the model in `folder` like batch-score and serve. Return None after an error in one sentence."""
    try:
        with bundle.open_model_folder(folder) as model:
            return Predictor(bundle.read_bundle(model))
    except UserError as error:
        reason = str(error)
    assert re.fullmatch("[^\n]{10,800}", reason)
    return None


@given(content=archive_files())
@generated_examples
def test_any_archive_loads_or_raises_and_leaves_nothing(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        model_folder = Path(folder) / "mounted"
        model_folder.mkdir()
        (model_folder / bundle.ARCHIVE_FILE).write_bytes(content)
        predictor = load(model_folder)
        assert predictor is None or predictor.predict(np.ones((1, 2), np.float32)).shape == (1, 1)
        assert [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")] == [
            "mounted",
            "mounted/model.tar.gz",
        ]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from([-1, 0, 2, 10**9, 10**30, 1e400, "2", "raw", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["mean", "a"]), inner)),
    max_leaves=4,
)
MANIFEST: dict[str, Any] = json.loads(VALID_FILES[bundle.MANIFEST_FILE])
MANIFESTS = st.one_of(
    st.dictionaries(st.sampled_from(list(MANIFEST)), JSON).map(lambda changed: json.dumps(MANIFEST | changed).encode()),
    JSON.map(lambda content: json.dumps(content).encode()),
    st.sampled_from([b"", b"\xff", b"[" * 100_000, b'{"features": ' + b"9" * 5000 + b"}"]),
    possibly_damaged_bytes(VALID_FILES[bundle.MANIFEST_FILE]),
)
NUMBERS = st.one_of(st.lists(st.sampled_from([0, 1, 2.5, 1e400, None, "x", 10**400]), max_size=3), JSON)
SCALERS = st.one_of(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("count", "mean", "scale"), NUMBERS)).map(
        lambda content: json.dumps(content).encode()
    ),
    st.binary(max_size=20),
)


@given(
    manifest=MANIFESTS,
    scaler=st.one_of(st.none(), SCALERS),
    model=possibly_damaged_bytes(VALID_FILES[bundle.MODEL_FILE]),
)
@generated_examples
def test_any_model_folder_loads_or_raises(manifest: bytes, scaler: bytes | None, model: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {bundle.MANIFEST_FILE: manifest, bundle.MODEL_FILE: model, "scaler.json": scaler}
        for name, content in files.items():
            if content is not None:
                (Path(folder) / name).write_bytes(content)
        load(Path(folder))


# --- models that ONNX Runtime loads, but that the trainers do not write ---


def save_model(folder: Path, node: onnx.NodeProto, inputs: list[Any], output: Any) -> None:
    write_linear_bundle(folder, [1.0, 2.0], 0.0)
    graph = helper.make_graph([node], "other", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / bundle.MODEL_FILE)


def make_tensor_info(name: str, element_type: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, element_type, list(shape))


FLOAT, DOUBLE, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.STRING
IDENTITY = helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    ("node", "inputs", "output", "message"),
    [
        (
            IDENTITY,
            [make_tensor_info("x", FLOAT, "n", 3)],
            make_tensor_info("y", FLOAT, "n", 3),
            "does not take rows of 2 features",
        ),
        (
            IDENTITY,
            [make_tensor_info("x", DOUBLE, "n", 2)],
            make_tensor_info("y", DOUBLE, "n", 2),
            "does not take rows of 2 features",
        ),
        (
            IDENTITY,
            [make_tensor_info("x", STRING, "n", 2)],
            make_tensor_info("y", STRING, "n", 2),
            "does not take rows of 2 features",
        ),
        (
            IDENTITY,
            [make_tensor_info("x", FLOAT, 1, 2)],
            make_tensor_info("y", FLOAT, 1, 2),
            "does not take rows of 2 features",
        ),
        (
            IDENTITY,
            [make_tensor_info("x", FLOAT, "n", 2)],
            make_tensor_info("y", FLOAT, "n", 2),
            r"but have type float32 and shape \(3, 2\)",
        ),
        (
            helper.make_node("Add", ["x", "z"], ["y"]),
            [make_tensor_info("x", FLOAT, "n", 2), make_tensor_info("z", FLOAT, "n", 2)],
            make_tensor_info("y", FLOAT, "n", 2),
            "does not take rows of 2 features",
        ),
    ],
    ids=["width", "double", "text", "one row", "two values per row", "two inputs"],
)
def test_model_with_other_inputs_or_outputs_raises(
    node: onnx.NodeProto, inputs: list[Any], output: Any, message: str, tmp_path: Path
) -> None:
    save_model(tmp_path, node, inputs, output)
    with pytest.raises(UserError, match=message):
        Predictor(bundle.read_bundle(tmp_path))


def test_large_header_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_HEADER_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("model.onnx")
        info.pax_headers = {"comment": "x" * (2 << 20)}
        tar.addfile(info)
    (tmp_path / bundle.ARCHIVE_FILE).write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"a header of \d+ bytes"):
        archives.unpack(tmp_path / bundle.ARCHIVE_FILE, tmp_path / "out")
