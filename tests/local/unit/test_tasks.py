"""Tasks, which share one thread."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest

from microjobs_orchestrator.local.tasks import IN_TIME, READ, WRITE, Event, Task, Tasks, Watcher, call_in_thread, wait

TIMEOUT_SECONDS = 20.0

caller: ContextVar[str] = ContextVar("caller", default="nobody")


class TaskThread:
    """Tasks that run in the thread of the test."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.tasks = Tasks(self.watcher)

    def run(self, *functions: Callable[[], object]) -> None:
        """Run functions as tasks until all have ended."""
        for function in functions:
            self.tasks.start(function)
        while self.tasks.count:
            for waiter in self.watcher.select(0.01):
                if isinstance(waiter, Task):
                    waiter.switch(IN_TIME)
                else:
                    self.tasks.run_calls()
            self.tasks.resume_late_tasks(time.monotonic())


@pytest.fixture
def thread() -> Iterator[TaskThread]:
    thread = TaskThread()
    yield thread
    thread.watcher.close()
    thread.tasks.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets that are connected with each other."""
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def make_short_deadline() -> float:
    return time.monotonic() + 0.05


def test_other_tasks_run_while_one_waits(thread: TaskThread, pair: tuple[socket.socket, socket.socket]) -> None:
    events: list[str] = []

    def receive() -> None:
        events.append("wait")
        wait(pair[0], READ, time.monotonic() + TIMEOUT_SECONDS)
        events.append(pair[0].recv(10).decode())

    def send() -> None:
        wait(pair[1], WRITE, time.monotonic() + TIMEOUT_SECONDS)
        events.append("send")
        pair[1].send(b"received")

    thread.run(receive, send)
    assert events == ["wait", "send", "received"]


@pytest.mark.parametrize("is_in_task", [True, False])
def test_wait_ends_at_the_deadline(
    thread: TaskThread, pair: tuple[socket.socket, socket.socket], is_in_task: bool
) -> None:
    errors: list[BaseException] = []

    def receive() -> None:
        with pytest.raises(TimeoutError, match="timed out") as caught:
            wait(pair[0], READ, make_short_deadline())
        errors.append(caught.value)

    if is_in_task:
        thread.run(receive, end_at_once)
    else:
        receive()
    assert len(errors) == 1


def end_at_once() -> None:
    pass


def test_other_tasks_run_while_one_calls_a_thread(thread: TaskThread) -> None:
    is_released = threading.Event()
    results: list[bool] = []
    thread.run(lambda: results.append(call_in_thread(lambda: is_released.wait(TIMEOUT_SECONDS))), is_released.set)
    assert results == [True]


def test_error_of_a_call_is_raised_in_its_task(thread: TaskThread) -> None:
    results: list[bool] = []

    def call() -> None:
        with pytest.raises(ZeroDivisionError):
            call_in_thread(lambda: 1 / 0)
        results.append(True)

    thread.run(call)
    assert results == [True]


def test_each_task_has_its_own_context_which_its_calls_share(thread: TaskThread) -> None:
    callers: list[tuple[str, str, str]] = []

    def make_function(name: str) -> Callable[[], None]:
        def run() -> None:
            earlier_caller = caller.get()
            caller.set(name)
            callers.append((earlier_caller, call_in_thread(caller.get), caller.get()))

        return run

    thread.run(make_function("a"), make_function("b"))
    thread.run(make_function("c"))  # the task has already run another function, whose context must not remain
    assert sorted(callers) == [("nobody", name, name) for name in "abc"]


def test_failed_task_does_not_end_the_others(thread: TaskThread, caplog: pytest.LogCaptureFixture) -> None:
    results: list[str] = []
    thread.run(lambda: 1 / 0, lambda: results.append("done"))
    assert results == ["done"]
    assert "a task failed" in caplog.text


def test_event_of_another_thread_ends_the_wait_of_a_task(thread: TaskThread) -> None:
    event, is_waiting = Event(), threading.Event()
    results: list[bool] = []

    def wait_twice() -> None:
        is_waiting.set()
        results.append(event.wait(TIMEOUT_SECONDS))
        results.append(event.wait(TIMEOUT_SECONDS))  # the event is still set
        event.clear()
        results.append(event.wait(0.05))

    def set_event() -> None:
        is_waiting.wait(TIMEOUT_SECONDS)
        event.set()

    setter = threading.Thread(target=set_event)
    setter.start()
    start_time = time.monotonic()
    thread.run(wait_twice)
    setter.join()
    assert results == [True, True, False]
    assert time.monotonic() - start_time < TIMEOUT_SECONDS


def test_late_event_does_not_end_another_wait(thread: TaskThread, pair: tuple[socket.socket, socket.socket]) -> None:
    event = Event()
    results: list[object] = []

    def wait_for_both() -> None:
        results.append(event.wait(TIMEOUT_SECONDS))
        event.set()  # no task waits for the event
        wait(pair[0], READ, time.monotonic() + TIMEOUT_SECONDS)
        results.append(pair[0].recv(10))

    def set_twice() -> None:
        event.set()
        event.clear()
        event.set()  # the second call wakes the task again
        call_in_thread(lambda: time.sleep(0.05))
        pair[1].send(b"received")

    thread.run(wait_for_both, set_twice)
    assert results == [True, b"received"]


def test_task_waits_for_a_new_socket_that_has_the_descriptor_of_a_closed_one(thread: TaskThread) -> None:
    received: list[bytes] = []
    descriptors: list[int] = []

    def exchange() -> None:
        for message in (b"first", b"second"):
            first, second = socket.socketpair()
            with first, second:
                descriptors.append(first.fileno())
                sender = threading.Timer(0.02, second.send, (message,))
                sender.start()
                wait(first, READ, time.monotonic() + TIMEOUT_SECONDS)
                received.append(first.recv(100))
                sender.join()

    thread.run(exchange)
    assert received == [b"first", b"second"]
    assert len(set(descriptors)) == 1


def test_byte_that_no_task_waits_for_ends_the_watch_of_its_socket(
    thread: TaskThread, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].send(b"a")
    thread.run(lambda: wait(pair[0], READ, time.monotonic() + TIMEOUT_SECONDS))
    assert list(thread.watcher.select(TIMEOUT_SECONDS)) == []  # returns at once, because no task has read the byte
    start_time = time.monotonic()
    assert list(thread.watcher.select(0.05)) == []
    assert time.monotonic() - start_time >= 0.04
    thread.run(lambda: wait(pair[0], READ, time.monotonic() + TIMEOUT_SECONDS))


def test_task_waits_again_for_a_watched_socket(thread: TaskThread, pair: tuple[socket.socket, socket.socket]) -> None:
    for message in (b"a", b"b"):
        threading.Timer(0.02, pair[1].send, (message,)).start()
        thread.run(lambda: wait(pair[0], READ, time.monotonic() + TIMEOUT_SECONDS))
        assert pair[0].recv(1) == message
