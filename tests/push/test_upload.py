"""Progress and errors of an upload, from the engine's events."""

import io
import time
from typing import Any

import pytest
from rich.console import Console

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.push.engine import UploadProgress, make_upload_error
from microjobs_orchestrator.push.push import PRINT_INTERVAL_SECONDS, make_upload_printer
from microjobs_orchestrator.runs.progress import Progress, StepDisplay


def make_upload(*events: dict[str, Any]) -> UploadProgress:
    upload = UploadProgress()
    for event in events:
        upload.update(event)
    return upload


def make_layer_event(name: str, status: str, **detail: int) -> dict[str, Any]:
    return {"id": name, "status": status, "progressDetail": detail}


def test_progress_counts_layers_and_bytes() -> None:
    upload = make_upload(
        {"status": "The push refers to repository [x]"},
        make_layer_event("a", "Layer already exists"),
        make_layer_event("b", "Mounted from team/other"),
        make_layer_event("c", "Pushing", current=1_000_000, total=4_000_000),
        make_layer_event("d", "Waiting"),
    )
    assert str(upload) == "2 of 4 layers, 1.0 of 4.0 MB"


def test_lost_connection_is_shown() -> None:
    assert (
        str(make_upload(make_layer_event("a", "Retrying in 5 seconds")))
        == "0 of 1 layers, connection lost, trying again"
    )


def test_final_events_are_not_counted_as_layers() -> None:
    aux = {"Tag": "t", "Digest": "sha256:1", "Size": 2}
    upload = make_upload(
        make_layer_event("a", "Pushed"), {"status": "t: digest: sha256:1 size: 2"}, {"progressDetail": {}, "aux": aux}
    )
    assert (len(upload.layer_statuses), upload.sent_layer_count, upload.existing_layer_count, upload.error) == (
        1,
        1,
        0,
        "",
    )


@pytest.mark.parametrize(("is_terminal", "line_count"), [(True, 0), (False, 1)])
def test_plain_output_prints_at_intervals(is_terminal: bool, line_count: int) -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text, force_terminal=is_terminal))
    step = StepDisplay("Pushing serve", start_time=time.monotonic() - PRINT_INTERVAL_SECONDS - 1)
    show = make_upload_printer(progress, step)
    for number in range(3):
        show(make_upload(make_layer_event("a", "Pushing", current=number * 1_000_000, total=3_000_000)))
    assert len(text.getvalue().splitlines()) == line_count
    assert step.status == ("0 of 1 layers, 2.0 of 3.0 MB" if is_terminal else "0 of 1 layers, 0.0 of 3.0 MB")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "denied: requested access to the resource is denied",
            "refuses x:t: denied: .*; check the permissions of your login",
        ),
        ("tag invalid: The image tag 't' already exists and is immutable", "refuses x:t: tag invalid"),
        (
            "write: broken pipe",
            "failed with 1 of 2 layers in the registry: write: broken pipe; `microjobs push serve` sends",
        ),
    ],
)
def test_upload_error_has_a_remedy(error: str, message: str) -> None:
    upload = make_upload(make_layer_event("a", "Pushed"), make_layer_event("b", "Pushing", current=1), {"error": error})
    with pytest.raises(CommandError, match=message):
        raise make_upload_error("x:t", "serve", upload)
