"""Tests of the ending of a host: the exit code, reason and certainty that follow from each type of evidence."""

import pytest

from microjobs import endings
from microjobs.endings import Certainty, Ending
from microjobs.errors import JobError, PlatformError, Stopped, UserError

MEMORY_HINT = "without reporting a reason: most likely out of memory; see the log above"
NO_HINT = "without reporting a reason: see the log above"


@pytest.mark.parametrize(
    ("ending", "code", "reason", "certainty"),
    [
        (endings.from_report("a", 0, ""), 0, "", Certainty.CERTAIN),
        (endings.from_report("a", 2, "row 5 is bad"), 2, "row 5 is bad", Certainty.CERTAIN),
        (endings.from_report("a", 3, "disk full"), 3, "disk full", Certainty.CERTAIN),
        (endings.from_report("a", 1, "KeyError"), 1, "KeyError", Certainty.DOUBTFUL),
        (
            endings.from_report("a", 1, "Connection closed by peer"),
            1,
            "Connection closed by peer",
            Certainty.LOST_CONNECTION,
        ),
        (endings.from_report("a", 2, "broken pipe"), 2, "broken pipe", Certainty.CERTAIN),
        (Ending("a", 128 + 15), 143, "", Certainty.CERTAIN),
        (endings.from_script("a", 5, "script failed"), 1, "script failed", Certainty.DOUBTFUL),
        (endings.from_script("a", 5, "socket closed"), 1, "socket closed", Certainty.LOST_CONNECTION),
        (endings.from_script("a", -11, "SIGSEGV"), 1, "SIGSEGV", Certainty.NO_REPORT),
        (endings.from_script("a", -9, "SIGKILL"), 1, "SIGKILL", Certainty.CERTAIN),
        (
            endings.from_exit_code("a", -9),
            3,
            f"its process was ended by SIGKILL {MEMORY_HINT}",
            Certainty.CERTAIN,
        ),
        (endings.from_exit_code("a", -11), 1, f"its process was ended by SIGSEGV {NO_HINT}", Certainty.NO_REPORT),
        (
            endings.from_exit_code("a", -11, is_agent=True),
            1,
            f"its process was ended by SIGSEGV {MEMORY_HINT}",
            Certainty.NO_REPORT,
        ),
        (endings.from_exit_code("a", 9), 1, f"its process exited with code 9 {NO_HINT}", Certainty.NO_REPORT),
        (
            endings.from_exit_code("a", 9, is_agent=True),
            1,
            f"its process exited with code 9 {MEMORY_HINT}",
            Certainty.NO_REPORT,
        ),
    ],
)
def test_evidence_gives_code_reason_and_certainty(ending: Ending, code: int, reason: str, certainty: Certainty) -> None:
    expected = f"host a failed: {reason}" if reason else ""
    assert ending == Ending("a", code, expected, certainty)


def test_more_certain_endings_sort_last() -> None:
    assert [*sorted(Certainty)] == [
        Certainty.LOST_CONNECTION,
        Certainty.DOUBTFUL,
        Certainty.NO_REPORT,
        Certainty.CERTAIN,
    ]


@pytest.mark.parametrize(
    ("code", "error"), [(1, JobError), (2, UserError), (3, PlatformError), (128 + 15, Stopped), (128 + 2, Stopped)]
)
def test_failure_raises_the_error_of_its_code(code: int, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        Ending("a", code, "row 5 is bad").raise_error()
    assert type(raised.value) is error
    assert getattr(raised.value, "signal_number", code - 128) == code - 128
    assert issubclass(error, Stopped) or str(raised.value) == "row 5 is bad"


def test_success_raises_nothing() -> None:
    Ending("a").raise_error()


def test_long_reason_is_cut() -> None:
    assert len(Ending("a", 1, "x" * 6000).reason) == 5000
