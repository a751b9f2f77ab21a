"""Script mode, as far as it needs no toolkit."""

import logging
import time
from pathlib import Path

import pytest

from microjobs import script_mode
from microjobs.contract import BASE_DIR, Layout
from microjobs.errors import Stopped, UserError


def run(script: str, folder: Path) -> None:
    script_mode._execute("train.py", ["/bin/sh", "-c", script], folder)


def test_reason_starts_with_the_scripts_last_line(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError, match=r"^train.py failed: no good \(exit code 3\)\nbefore\nno good$"):
        run("echo before >&2; echo no good >&2; exit 3", tmp_path)


def test_only_the_end_of_a_long_stderr_is_kept(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError) as raised:
        run("seq 100000 >&2; exit 1", tmp_path)
    assert str(raised.value).splitlines()[1:] == [str(number) for number in range(99981, 100001)]


def test_killed_script_is_said_to_lack_memory(tmp_path: Path) -> None:
    with pytest.raises(script_mode.ScriptError, match="ended by SIGKILL, most likely out of memory"):
        run("kill -KILL $$", tmp_path)


def test_failure_after_a_stop_signal_is_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as raised:
        run("kill -TERM $PPID; sleep 0.2; exit 1", tmp_path)
    assert raised.value.signal_number == 15


def test_leftover_process_does_not_hold_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_mode, "DRAIN_SECONDS", 0.1)
    start = time.monotonic()
    run("sleep 2 & exit 0", tmp_path)
    assert time.monotonic() - start < 1.5


def test_source_below_the_root_is_found_where_the_root_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.code.mkdir()
    assert script_mode._source(layout, layout.spell(layout.code)) == str(layout.code)
    assert script_mode._source(layout, "s3://bucket/code.tar.gz") == "s3://bucket/code.tar.gz"


def test_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'/nowhere' does not exist"):
        script_mode._source(Layout(tmp_path), "/nowhere")


def test_image_without_the_toolkit_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(BASE_DIR, str(tmp_path))
    caplog.set_level(logging.INFO)
    with pytest.raises(UserError, match="this image has no script mode"):
        script_mode.train("train.py")
