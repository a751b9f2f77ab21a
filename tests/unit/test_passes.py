"""The two passes of CI: the second pass runs the tests that the first one skips."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
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


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("ENGINE", raising=False)
    pytester.makepyfile(TESTS)
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
