"""Memory of several workers with one model, and free memory for more models."""

import math
import os
import shutil
from pathlib import Path

import pytest

from microjobs.hosting.memory import measure_container_free_bytes, measure_process_tree_bytes
from tests.bundles import write_large_bundle
from tests.unit.serve.conftest import Server, run_server

pytestmark = pytest.mark.slow

MODEL_MB = 256
FEATURE_COUNT = 1024
WORKERS = 4
OVERHEAD_MB = 550
"""Memory of the interpreters and the libraries, including the libraries of `tests/fork_server_preload.py`, which each
fork inherits. If the workers did not share the model, the test would measure 3 * MODEL_MB more, which is more than
this overhead."""
PROGRAM = "def output_fn(prediction, accept):\n    return str(prediction.shape)\n"


def measure_used_megabytes(server: Server) -> int:
    return measure_process_tree_bytes(server.process.pid) // 1024**2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_large_bundle(folder, MODEL_MB, FEATURE_COUNT)
    return folder


@pytest.mark.parametrize("program", [None, PROGRAM], ids=["bundle", "program-without-model_fn"])
def test_workers_share_the_memory_of_a_bundle(tmp_path: Path, bundle: Path, program: str | None) -> None:
    shutil.copytree(bundle, tmp_path / "model", copy_function=os.link)
    if program is not None:
        (tmp_path / "model" / "code").mkdir()
        (tmp_path / "model" / "code" / "inference.py").write_text(program)
    with run_server(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS=str(WORKERS)) as server:
        server.wait_until_ready()
        row = ",".join(["1"] * FEATURE_COUNT)
        assert {server.invoke(row, "text/csv").status for _ in range(4 * WORKERS)} == {200}
        assert len(server.list_worker_pids()) == WORKERS
        assert MODEL_MB < measure_used_megabytes(server) < MODEL_MB + OVERHEAD_MB


def write_cgroup(folder: Path, statistics_prefix: str, **contents: object) -> Path:
    """Write the files of a cgroup; two underscores in a name stand for a dot.

    Args:
        statistics_prefix: the start of the names in memory.stat.
    """
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")
    (folder / "memory.stat").write_text(
        f"anon 1\n{statistics_prefix}inactive_file 20\n{statistics_prefix}active_file 3\n"
    )
    return folder


def test_free_memory_of_a_container_includes_file_caches(tmp_path: Path) -> None:
    write_cgroup(tmp_path / "v2", "", memory__max=1000, memory__current=500)
    write_cgroup(tmp_path / "v1/memory", "total_", memory__limit_in_bytes=1000, memory__usage_in_bytes=500)
    assert [measure_container_free_bytes(tmp_path / name) for name in ("v1", "v2")] == [523, 523]


def test_container_without_a_limit_has_infinite_memory(tmp_path: Path) -> None:
    write_cgroup(tmp_path / "v2", "", memory__max="max", memory__current=500)
    assert [measure_container_free_bytes(tmp_path / name) for name in ("absent", "v2")] == [math.inf, math.inf]
