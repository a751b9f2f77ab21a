"""Tasks, which share one thread."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest

from microjobs_orchestrator.local.tasks import READ, WRITE, Task, Tasks, Watcher, call_in_thread, wait

SECONDS = 20.0

caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Thread:
    """The thread that runs the tasks: the thread of the test."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.tasks = Tasks(self.watcher)

    def run(self, *functions: Callable[[], object]) -> None:
        """Run functions as tasks until all have ended."""
        for function in functions:
            self.tasks.start(function)
        while self.tasks.count:
            for data in self.watcher.select(0.01):
                if isinstance(data, Task):
                    data.switch(True)
                else:
                    self.tasks.resume_called()
            self.tasks.resume_late(time.monotonic())


@pytest.fixture
def thread() -> Iterator[Thread]:
    thread = Thread()
    yield thread
    thread.watcher.close()
    thread.tasks.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def soon() -> float:
    return time.monotonic() + 0.05


def test_other_tasks_run_while_one_waits(thread: Thread, pair: tuple[socket.socket, socket.socket]) -> None:
    events: list[str] = []

    def receive() -> None:
        events.append("wait")
        wait(pair[0].fileno(), READ, time.monotonic() + SECONDS)
        events.append(pair[0].recv(10).decode())

    def send() -> None:
        wait(pair[1].fileno(), WRITE, time.monotonic() + SECONDS)
        events.append("send")
        pair[1].send(b"received")

    thread.run(receive, send)
    assert events == ["wait", "send", "received"]


@pytest.mark.parametrize("in_task", [True, False])
def test_wait_ends_at_the_deadline(thread: Thread, pair: tuple[socket.socket, socket.socket], in_task: bool) -> None:
    errors: list[BaseException] = []

    def receive() -> None:
        with pytest.raises(TimeoutError, match="timed out") as caught:
            wait(pair[0].fileno(), READ, soon())
        errors.append(caught.value)

    if in_task:
        thread.run(receive, receive_nothing)
    else:
        receive()
    assert len(errors) == 1


def receive_nothing() -> None:
    """A task that ends at once."""


def test_other_tasks_run_while_one_calls_a_thread(thread: Thread) -> None:
    is_released = threading.Event()
    results: list[bool] = []
    thread.run(lambda: results.append(call_in_thread(lambda: is_released.wait(SECONDS))), is_released.set)
    assert results == [True]


def test_error_of_a_call_is_raised_in_its_task(thread: Thread) -> None:
    raised: list[bool] = []

    def call() -> None:
        with pytest.raises(ZeroDivisionError):
            call_in_thread(lambda: 1 / 0)
        raised.append(True)

    thread.run(call)
    assert raised == [True]


def test_tasks_have_contexts_of_their_own_which_calls_share(thread: Thread) -> None:
    callers: list[tuple[str, str, str]] = []

    def call(name: str) -> Callable[[], None]:
        def run() -> None:
            before = caller.get()
            caller.set(name)
            callers.append((before, call_in_thread(caller.get), caller.get()))

        return run

    thread.run(call("a"), call("b"))
    assert sorted(callers) == [("nobody", "a", "a"), ("nobody", "b", "b")]


def test_failed_task_does_not_end_the_others(thread: Thread, caplog: pytest.LogCaptureFixture) -> None:
    results: list[str] = []
    thread.run(lambda: 1 / 0, lambda: results.append("done"))
    assert results == ["done"]
    assert "a task failed" in caplog.text
