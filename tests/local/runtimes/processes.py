"""Helpers for tests of the process runtime: plans, and a job that needs no packages."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from microjobs.contract import Layout
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Host, HostPlan
from microjobs_orchestrator.local.runtimes.process.runtime import ProcessRuntime
from tests.conftest import CONTAINERS

T = TypeVar("T")


def make_home(root: Path) -> Home:
    home = Home(root)
    home.create()
    return home


def make_tiny_repository(workspace: Path, code: str) -> None:
    """Create the folder `repository`, with one job `tiny` that needs no packages."""
    jobs, shared = workspace / "repository" / "containers", workspace / "repository" / "shared"
    (jobs / "tiny" / "microjobs_tiny").mkdir(parents=True)
    for name in ("bin", "fallback", "installer.lock"):
        (jobs / name).symlink_to(CONTAINERS / name)
    shared.mkdir()
    for file in (jobs / "tiny" / "image.yml", jobs / "tiny" / "cpu.lock", shared / "requirements.lock"):
        file.touch()
    (jobs / "tiny" / "microjobs_tiny" / "main.py").write_text(code)


def make_tiny_runtime(workspace: Path) -> ProcessRuntime:
    return ProcessRuntime(make_home(workspace / "home"), workspace / "repository" / "containers")


def make_host_plan(
    folder: Path, job: str, *, write: Callable[[Layout], None] = lambda _: None, **options: Any
) -> HostPlan:
    """Return the plan of a host. `write` writes small files into the host's folder."""
    name = options.pop("name", "algo-1")
    files = folder / name / "files"
    files.mkdir(parents=True)
    write(Layout(files))
    return HostPlan(name, f"microjobs/{job}:dev", files, **options)


def make_program_plan(folder: Path, code: str, *arguments: str, **options: Any) -> HostPlan:
    """Return the plan of a host that runs a user's Python program."""
    return make_host_plan(folder, "tiny", entrypoint=("python3", "-c", code), arguments=arguments, **options)


def read_output(host: Host) -> str:
    return "\n".join(line.text.decode() for line in host.lines())


def wait_for_line(host: Host, text: bytes) -> None:
    assert any(text in line.text for line in host.lines()), read_output(host)


def find_processes(text: str) -> list[int]:
    """Return the ids of the processes whose command line contains `text`."""
    return [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if text.encode() in _read_if_exists(path)
    ]


def _read_if_exists(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def get_names(paths: Iterable[Path]) -> set[str]:
    return {path.name for path in paths}
