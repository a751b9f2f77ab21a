"""What is made of the engine's stream."""

import io
import time
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.push.engine import Upload, failure
from microjobs_orchestrator.push.push import PLAIN_SECONDS, shower
from microjobs_orchestrator.runs.progress import Progress, StepDisplay


def after(*events: dict[str, Any]) -> Upload:
    upload = Upload()
    for event in events:
        upload.take(event)
    return upload


def layer(name: str, status: str, **detail: int) -> dict[str, Any]:
    return {"id": name, "status": status, "progressDetail": detail}


def test_progress_counts_layers_and_bytes() -> None:
    upload = after(
        {"status": "The push refers to repository [x]"},
        layer("a", "Layer already exists"),
        layer("b", "Mounted from team/other"),
        layer("c", "Pushing", current=1_000_000, total=4_000_000),
        layer("d", "Waiting"),
    )
    assert str(upload) == "2 of 4 layers, 1.0 of 4.0 MB"


def test_lost_connection_shows() -> None:
    assert str(after(layer("a", "Retrying in 5 seconds"))) == "0 of 1 layers, connection lost, trying again"


def test_end_of_a_push_is_no_layer() -> None:
    aux = {"Tag": "t", "Digest": "sha256:1", "Size": 2}
    upload = after(layer("a", "Pushed"), {"status": "t: digest: sha256:1 size: 2"}, {"progressDetail": {}, "aux": aux})
    assert (len(upload.layers), upload.pushed, upload.there, upload.error) == (1, 1, 0, "")


@pytest.mark.parametrize(("terminal", "lines"), [(True, 0), (False, 1)])
def test_plain_output_has_a_line_now_and_then(terminal: bool, lines: int) -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=terminal))
    step = StepDisplay("Pushing serve", started=time.monotonic() - PLAIN_SECONDS - 1)
    show = shower(progress, step)
    for number in range(3):
        show(after(layer("a", "Pushing", current=number * 1_000_000, total=3_000_000)))
    assert len(text.getvalue().splitlines()) == lines
    assert step.status == ("0 of 1 layers, 2.0 of 3.0 MB" if terminal else "0 of 1 layers, 0.0 of 3.0 MB")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("denied: requested access to the resource is denied", "refuses x:t: denied: .*; check what your login may do"),
        ("tag invalid: The image tag 't' already exists and is immutable", "refuses x:t: tag invalid"),
        ("write: broken pipe", "broke off with 1 of 2 layers there: write: broken pipe; `microjobs push serve` again"),
    ],
)
def test_failure_says_whether_a_second_try_helps(error: str, told: str) -> None:
    upload = after(layer("a", "Pushed"), layer("b", "Pushing", current=1), {"error": error})
    with pytest.raises(LauncherError, match=told):
        raise failure("x:t", "serve", upload)
