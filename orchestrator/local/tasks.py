"""Tasks: functions that share one thread. While one of them waits, the thread runs the others.

A change between threads takes longer than a small request, so the listener serves short requests in tasks. Functions
that also run in a thread of their own call `wait` and `call_in_thread`, which find out where they run. A task must not
wait in other ways, and must not hold a lock while it waits: the thread could not release it.
"""

import contextlib
import logging
import math
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

logger = logging.getLogger(__name__)

MAX_THREADS = 64
"""Maximum number of calls of `call_in_thread` that run at the same time."""

Result = TypeVar("Result")

READ, WRITE = select.POLLIN, select.POLLOUT
"""What to wait for. epoll has the same numbers."""
_SELECTOR_EVENTS = {READ: selectors.EVENT_READ, WRITE: selectors.EVENT_WRITE}


def wait(file: int, event: int, deadline: float) -> None:
    """Wait until a file is ready.

    Args:
        file: the file descriptor of a socket.
        event: READ or WRITE.
        deadline: in seconds of the monotonic clock.

    Raises:
        TimeoutError: the file is not ready before the deadline.
    """
    task = getcurrent()
    if not (task.wait(file, event, deadline) if isinstance(task, Task) else _poll(file, event, deadline)):
        raise TimeoutError("timed out")


def _poll(file: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))))


def call_in_thread(function: Callable[[], Result]) -> Result:
    """Call a function that may wait. A task calls it in another thread, and waits; otherwise this thread calls it."""
    task = getcurrent()
    return task.call_in_thread(function) if isinstance(task, Task) else function()


class Watcher:
    """Watches files. The module `selectors` does the same, but takes several times longer than the system does."""

    def __init__(self) -> None:
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else _SelectorPoll()
        self._watched: dict[int, tuple[int, object]] = {}

    def find(self, file: int) -> tuple[int, object] | None:
        """Return the event and the data of a file; None if it is not watched."""
        return self._watched.get(file)

    def register(self, file: int, event: int, data: object) -> None:
        """Watch a file, from now on for this event. Raise OSError or ValueError after `close`."""
        (self._poll.modify if file in self._watched else self._poll.register)(file, event)
        self._watched[file] = event, data

    def unregister(self, file: int) -> None:
        self._poll.unregister(file)
        del self._watched[file]

    def select(self, seconds: float) -> Iterator[object]:
        """Wait until files are ready; yield their data."""
        for file, _ in self._poll.poll(seconds):
            if (watched := self._watched.get(file)) is not None:  # an earlier file may have ended the registration
                yield watched[1]

    def close(self) -> None:
        self._poll.close()


class _SelectorPoll:
    """The interface of `select.epoll` for systems without it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.unregister, self.close = self._selector.unregister, self._selector.close

    def register(self, file: int, event: int) -> None:
        self._selector.register(file, _SELECTOR_EVENTS[event])

    def modify(self, file: int, event: int) -> None:
        self._selector.modify(file, _SELECTOR_EVENTS[event])

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        return [(key.fd, event) for key, event in self._selector.select(seconds)]


class Task(greenlet):
    """A running task."""

    def __init__(self, tasks: "Tasks", function: Callable[[], object]) -> None:
        super().__init__(function)
        self._tasks = tasks
        self._loop = getcurrent()
        """What runs while the task waits."""
        self.deadline = math.inf

    def wait(self, file: int, event: int, deadline: float) -> bool:
        """Let the thread run other tasks; return whether the file is ready before the deadline."""
        return self._tasks.wait(self, file, event, deadline)

    def call_in_thread(self, function: Callable[[], Result]) -> Result:
        return self._tasks.call_in_thread(self, function)

    def pause(self) -> bool:
        """Let the thread run other tasks until `switch` is called; return its argument."""
        return bool(self._loop.switch())


class Tasks:
    """The tasks of one thread. Only this thread may call the methods.

    Args:
        watcher: watches the files for which tasks wait. Its user switches to tasks that are the data of ready files,
            and calls `resume_called` if the data is this object.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.count = 0
        """The number of tasks that have not ended."""
        self._watcher = watcher
        self._waiting: set[Task] = set()
        """The tasks that wait for files."""
        self._called: deque[Task] = deque()
        """The tasks whose calls in other threads have ended."""
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="task")
        self._wakers = socket.socketpair()
        for waker in self._wakers:
            waker.setblocking(False)
        watcher.register(self._wakers[0].fileno(), READ, self)

    def start(self, function: Callable[[], object]) -> None:
        """Run a function until it waits for the first time, or ends."""
        self.count += 1
        Task(self, lambda: self._run(function)).switch()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:
            logger.exception("a task failed")
        finally:
            self.count -= 1

    def wait(self, task: Task, file: int, event: int, deadline: float) -> bool:
        task.deadline = deadline
        before = self._watcher.find(file)
        self._watcher.register(file, event, task)
        self._waiting.add(task)
        try:
            return task.pause()
        finally:
            self._waiting.discard(task)
            if before is None:
                self._watcher.unregister(file)
            else:
                self._watcher.register(file, *before)

    def resume_late(self, now: float) -> None:
        """Resume the tasks whose deadlines have passed."""
        for task in [task for task in self._waiting if task.deadline <= now]:
            task.switch(False)

    def call_in_thread(self, task: Task, function: Callable[[], Result]) -> Result:
        future = self._pool.submit(copy_context().run, function)
        future.add_done_callback(lambda _: self._end_call(task))
        task.pause()
        return future.result()

    def _end_call(self, task: Task) -> None:
        self._called.append(task)
        with contextlib.suppress(OSError):  # there are unread bytes, or `close` was called
            self._wakers[1].send(b"\0")

    def resume_called(self) -> None:
        """Resume the tasks whose calls in other threads have ended."""
        with contextlib.suppress(BlockingIOError):
            self._wakers[0].recv(4096)
        while self._called:
            self._called.popleft().switch(True)

    def close(self) -> None:
        """Run the remaining tasks no longer."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for waker in self._wakers:
            waker.close()
