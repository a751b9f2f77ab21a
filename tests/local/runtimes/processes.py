"""What tests of the process runtime share: plans, and jobs that need no packages."""

import time
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
    home.make()
    return home


def tiny_jobs(place: Path, code: str) -> None:
    """Make a repository with one job, `tiny`, which needs no packages."""
    jobs, shared = place / "repository" / "containers", place / "repository" / "shared"
    (jobs / "tiny" / "microjobs_tiny").mkdir(parents=True)
    for programs in ("bin", "fallback"):
        (jobs / programs).symlink_to(CONTAINERS / programs)
    shared.mkdir()
    for empty in (jobs / "tiny" / "image.yml", jobs / "tiny" / "cpu.lock", shared / "requirements.lock"):
        empty.touch()
    (jobs / "tiny" / "microjobs_tiny" / "main.py").write_text(code)


def tiny_runtime(place: Path) -> ProcessRuntime:
    return ProcessRuntime(make_home(place / "home"), place / "repository" / "containers")


def host_plan(folder: Path, job: str, *, write: Callable[[Layout], None] = lambda _: None, **options: Any) -> HostPlan:
    """A host whose small files `write` writes."""
    name = options.pop("name", "algo-1")
    files = folder / name / "files"
    files.mkdir(parents=True)
    write(Layout(files))
    return HostPlan(name, f"microjobs/{job}:dev", files, **options)


def program(folder: Path, code: str, *arguments: str, **options: Any) -> HostPlan:
    """A host that runs a user's Python program."""
    return host_plan(folder, "tiny", entrypoint=("python3", "-c", code), arguments=arguments, **options)


def output(host: Host) -> str:
    return "\n".join(line.text.decode() for line in host.lines())


def wait_for_line(host: Host, text: bytes) -> None:
    assert any(text in line.text for line in host.lines()), output(host)


def wait_until(ask: Callable[[], T], seconds: float = 30.0) -> T:
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"nothing within {seconds:g} s"
        time.sleep(0.01)
    return answer


def processes_with(text: str) -> list[int]:
    """Processes whose command line has a text in it."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if text.encode() in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def names(folder: Iterable[Path]) -> set[str]:
    return {path.name for path in folder}
