"""The two passes of CI: the second pass runs the tests that the first pass skips."""

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TEST_FILE = """
import os
import pytest


@pytest.mark.skipif("ENGINE" not in os.environ, reason="no engine")
@pytest.mark.parametrize("image", ["a b", "c"])
def test_engine(image):
    assert image


def test_everywhere():
    pass


def test_needs_a_tool():
    if "ENGINE" not in os.environ:
        pytest.skip("no tool")
"""


@pytest.fixture(autouse=True)
def load_only_the_named_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed plugins, such as Playwright's, take longer to import than the tests take."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("ENGINE", raising=False)
    pytester.makepyfile(TEST_FILE)
    return pytester


def test_second_pass_runs_skipped_tests(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "skipped"
    project.runpytest_inprocess("-p", "tests.passes", f"--record-skipped={file}").assert_outcomes(passed=1, skipped=3)
    monkeypatch.setenv("ENGINE", "1")
    project.runpytest_inprocess("-p", "tests.passes", f"--only={file}").assert_outcomes(passed=3, deselected=1)


def test_unknown_test_is_an_error(project: pytest.Pytester, tmp_path: Path) -> None:
    (tmp_path / "skipped").write_text("test_gone.py::test_gone\n")
    result = project.runpytest_inprocess("-p", "tests.passes", f"--only={tmp_path / 'skipped'}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*names tests that do not exist: test_gone.py::test_gone"])


def test_skipped_tests_of_several_processes_are_recorded_once(project: pytest.Pytester, tmp_path: Path) -> None:
    file = tmp_path / "skipped"
    project.runpytest_subprocess("-p", "tests.passes", "-p", "xdist", "-n", "2", f"--record-skipped={file}")
    assert len(file.read_text().splitlines()) == 3


SLOW_FILE = """
import pytest


@pytest.mark.slow
def test_slow():
    pass


def test_fast():
    pass
"""


@pytest.fixture
def slow_project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\ntestpaths = tests\nmarkers = slow")
    pytester.mkdir("tests")
    (pytester.path / "tests" / "test_speed.py").write_text(SLOW_FILE)
    return pytester


@pytest.mark.parametrize("worker_options", [(), ("-p", "xdist", "-n", "1")], ids=["one-process", "workers"])
def test_run_of_all_tests_skips_slow_tests(slow_project: pytest.Pytester, worker_options: Sequence[str]) -> None:
    result = slow_project.runpytest_subprocess("-p", "tests.passes", "-rs", *worker_options)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*slow: `make check` runs it*"])


@pytest.mark.parametrize("worker_options", [(), ("-p", "xdist", "-n", "1")], ids=["one-process", "workers"])
@pytest.mark.parametrize("argument", ["--slow", "tests/test_speed.py", "tests/test_speed.py::test_slow"])
def test_slow_tests_run_if_the_command_names_them(
    slow_project: pytest.Pytester, worker_options: Sequence[str], argument: str
) -> None:
    result = slow_project.runpytest_subprocess("-p", "tests.passes", argument, *worker_options)
    result.assert_outcomes(passed=1 if "::" in argument else 2)


def test_second_pass_runs_slow_tests(slow_project: pytest.Pytester, tmp_path: Path) -> None:
    file = tmp_path / "skipped"
    slow_project.runpytest_subprocess("-p", "tests.passes", f"--record-skipped={file}").assert_outcomes(
        passed=1, skipped=1
    )
    second_pass = slow_project.runpytest_subprocess("-p", "tests.passes", f"--only={file}")
    second_pass.assert_outcomes(passed=1, deselected=1)
