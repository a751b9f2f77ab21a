"""Functions of Lambda steps that print too much, leave processes behind, are stopped, or cannot be started."""

import threading
import time

import pytest

from microjobs_orchestrator.local import functions
from microjobs_orchestrator.local.functions import FunctionError, FunctionRun


def test_function_that_prints_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "TIMEOUT", 20.0)
    run = FunctionRun("sh -c 'head -c 4000000 /dev/zero; sleep 60'", "name", event={}, variables={})
    with pytest.raises(FunctionError, match="printed more than 1048576 bytes"):
        run.wait()


def test_function_ends_although_it_left_a_process_in_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "TIMEOUT", 10.0)
    monkeypatch.setattr(functions, "OUTPUT_GRACE_SECONDS", 0.5)
    run = FunctionRun("sh -c 'setsid sleep 12 & cat'", "name", event={"number": 1}, variables={})
    assert run.wait() == {"number": 1}


def test_error_message_ends_with_the_last_line_of_a_long_error_output() -> None:
    run = FunctionRun(
        "sh -c 'head -c 4000000 /dev/zero >&2; (echo; echo the reason) >&2; exit 3'", "name", event={}, variables={}
    )
    with pytest.raises(FunctionError, match=r"exit code 3: the reason$"):
        run.wait()


def test_stop_does_not_wait_for_processes_in_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "OUTPUT_GRACE_SECONDS", 10.0)
    run = FunctionRun("sh -c 'setsid sleep 12 & sleep 60'", "name", event={}, variables={})
    threading.Timer(0.5, run.stop).start()
    start = time.monotonic()
    with pytest.raises(FunctionError, match="it was stopped"):
        run.wait()
    assert time.monotonic() - start < 5


def test_command_with_an_open_quotation_cannot_be_started() -> None:
    with pytest.raises(FunctionError, match="echo 'x cannot be started: No closing quotation"):
        FunctionRun("echo 'x", "name", event={}, variables={})
