"""Waiting until the process of a resource answers, so that requests can connect to it."""

import socket
import threading
from collections.abc import Callable

import pytest

from microjobs_orchestrator.local.lifecycle.connectors import Connectors

WAIT_SECONDS = 600.0
TIMEOUT_SECONDS = 60.0  # less than WAIT_SECONDS, so that the test fails if only WAIT_SECONDS ends the wait


def connect(_: float) -> socket.socket:
    raise NotImplementedError


@pytest.mark.parametrize(
    "end_wait", [lambda connectors: connectors.add("arn", connect), Connectors.close], ids=["add", "close"]
)
def test_waiting_ends_with_an_answer_of_the_process_or_the_end_of_the_server(
    end_wait: Callable[[Connectors], None],
) -> None:
    connectors = Connectors()
    waiting_thread = threading.Thread(target=connectors.wait, args=("arn", WAIT_SECONDS), daemon=True)
    waiting_thread.start()
    connectors.add("another", connect)
    assert waiting_thread.is_alive()
    end_wait(connectors)
    waiting_thread.join(TIMEOUT_SECONDS)
    assert not waiting_thread.is_alive()
