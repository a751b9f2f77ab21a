"""Options that split the tests into two passes, so that a test which one pass skips runs in the other.

CI first runs the tests as on a machine without an engine, with `--record-skipped=FILE`. Then it runs only the skipped
tests, with `--only=FILE`, on a machine with an engine.

Without `--slow`, a run of all tests skips those marked `slow`, so that it ends within minutes. A command that names
files or tests, and the second pass of CI, run slow tests, too.
"""

from pathlib import Path

import pytest

SLOW_REASON = "slow: `make check` runs it, and `make test OPTIONS=--slow`"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-skipped", metavar="FILE", type=Path, help="write the IDs of the skipped tests to FILE")
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--only", metavar="FILE", type=Path, help="run only the tests whose IDs are in FILE")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--only") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        config.option.slow = True
    file: Path | None = config.getoption("--record-skipped")
    is_worker = hasattr(config, "workerinput")  # workers of pytest-xdist send all reports to the first process
    if file is not None and not is_worker:
        config.pluginmanager.register(Recorder(file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason=SLOW_REASON))
    file: Path | None = config.getoption("--only")
    if file is None:
        return
    selected = set(file.read_text(encoding="utf-8").splitlines())
    if missing := selected - {item.nodeid for item in items}:
        raise pytest.UsageError(f"--only {file} names tests that do not exist: {', '.join(sorted(missing)[:5])}")
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in selected])
    items[:] = [item for item in items if item.nodeid in selected]


class Recorder:
    """Writes the ID of each skipped test as soon as it is skipped, one line each."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")
