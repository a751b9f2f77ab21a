"""The removal of a test's resources, with a fake client and a fake clock, without a server and without waiting."""

import time
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.library.removal import remove_new_resources
from microjobs_orchestrator.local.lifecycle.hosts import GRACE_PERIOD


class FakeServer:
    """A server, and also its client. Its only training job needs `stopping_seconds` to end after the stop request."""

    def __init__(self, clock: "Clock", stopping_seconds: float) -> None:
        self.exists = True
        self._clock = clock
        self._stopping_seconds = stopping_seconds

    def client(self, _: str) -> "FakeServer":
        return self

    def get_paginator(self, method: str) -> Any:
        names = [{"TrainingJobName": "job"}] if method == "list_training_jobs" and self.exists else []
        page = defaultdict[str, list[dict[str, str]]](list, TrainingJobSummaries=names)
        return SimpleNamespace(paginate=lambda **_: [page])

    def stop_training_job(self, **_: str) -> None:
        assert self._clock.seconds == 0

    def describe_training_job(self, **_: str) -> dict[str, str]:
        if not self.exists:
            raise ClientError({"Error": {"Message": "Could not find the job"}}, "DescribeTrainingJob")
        return {"TrainingJobStatus": "Stopping" if self._clock.seconds < self._stopping_seconds else "Stopped"}

    def delete_training_job(self, **_: str) -> None:
        assert self._clock.seconds >= self._stopping_seconds
        self.exists = False


class Clock:
    """A clock whose time advances only while a program sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock.seconds)
        patch.setattr(time, "sleep", clock.sleep)
        yield clock


def remove(server: Any) -> None:
    remove_new_resources(server, {})


def test_job_that_must_be_killed_is_removed(clock: Clock) -> None:
    server = FakeServer(clock, stopping_seconds=GRACE_PERIOD + 20)
    remove(server)
    assert not server.exists


def test_job_that_does_not_end_is_named(clock: Clock) -> None:
    with pytest.raises(CommandError, match="training job job was not removed within 180 s"):
        remove(FakeServer(clock, stopping_seconds=3600))
