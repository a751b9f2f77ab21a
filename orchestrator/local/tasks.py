"""Tasks: functions that share one thread. While one of them waits, the thread runs the others.

A change between threads takes longer than a small request, so the listener serves short requests in tasks. Functions
that run in a task or in their own thread call `wait` and `call_in_thread`, which work in both cases. A task must not
wait in other ways, and must not hold a lock while it waits: if another task of the same thread then waited for the
lock, the thread could never release it.
"""

import contextlib
import logging
import math
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

logger = logging.getLogger(__name__)

MAX_THREADS = 64
"""Maximum number of calls of `call_in_thread` that run at the same time."""

Result = TypeVar("Result")

READ, WRITE = select.POLLIN, select.POLLOUT
"""The events to wait for. Their numbers are those of epoll."""
IN_TIME, TOO_LATE = True, False
"""Values that a waiting task receives from `Task.switch`: its event has occurred, or its deadline has passed."""
_SELECTOR_EVENTS = {READ: selectors.EVENT_READ, WRITE: selectors.EVENT_WRITE}


def wait(file: socket.socket, event: int, deadline: float) -> None:
    """Wait until a socket is ready. In a task, the wait may end earlier, so the caller must expect BlockingIOError.

    Args:
        event: READ or WRITE.
        deadline: in seconds of the monotonic clock.

    Raises:
        TimeoutError: the socket is not ready before the deadline.
    """
    task = getcurrent()
    if not (task.wait(file, event, deadline) if isinstance(task, Task) else _poll(file, event, deadline)):
        raise TimeoutError("timed out")


def _poll(file: socket.socket, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))))


def call_in_thread(function: Callable[[], Result]) -> Result:
    """Call a function that may wait. A task calls it in another thread, and waits; otherwise this thread calls it."""
    task = getcurrent()
    return task.call_in_thread(function) if isinstance(task, Task) else function()


class Event:
    """A `threading.Event` that can also wake a task. Only one function may wait for it at a time."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._task: Task | None = None
        """The task that waits."""
        self.is_set, self.clear = self._event.is_set, self._event.clear

    def set(self) -> None:
        """Set the event. Any thread may call this."""
        if not self._event.is_set():
            self._event.set()
            if (task := self._task) is not None:
                task.call_soon(self._resume)

    def wait(self, seconds: float) -> bool:
        """Wait until the event is set, at most for some seconds. Return whether it is set."""
        task = getcurrent()
        if not isinstance(task, Task):
            return self._event.wait(seconds)
        deadline, self._task = time.monotonic() + seconds, task
        try:
            while not self._event.is_set() and task.sleep(deadline):
                pass
        finally:
            self._task = None
        return self._event.is_set()

    def _resume(self) -> None:
        if self._task is not None:  # otherwise, the task has stopped waiting for this event
            self._task.switch(IN_TIME)


@dataclass(slots=True)
class _WatchedSocket:
    file: socket.socket
    event: int
    waiter: object
    """The object that waits for the socket, such as a task or a connection; None if none waits."""


class Watcher:
    """Watches sockets with `select.epoll`. The module `selectors` would do the same, but take several times as long."""

    def __init__(self) -> None:
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else _SelectorPoll()
        self._watched: dict[int, _WatchedSocket] = {}
        """The sockets by file descriptor. A socket that was closed after `release` stays here until another socket has
        its file descriptor; the system has forgotten it."""

    def find(self, file: socket.socket) -> tuple[int, object] | None:
        """Return the event and the waiter of a socket; None if nothing waits for it."""
        watched = self._watched.get(file.fileno())
        if watched is None or watched.waiter is None or watched.file is not file:
            return None
        return watched.event, watched.waiter

    def register(self, file: socket.socket, event: int, waiter: object) -> None:
        """Watch a socket, from now on for this event. Raise OSError or ValueError after `close`.

        Args:
            waiter: the object that `select` yields when the socket is ready.
        """
        descriptor = file.fileno()
        watched = self._watched.get(descriptor)
        if watched is None or watched.file is not file:
            self._poll.register(descriptor, event)
            self._watched[descriptor] = _WatchedSocket(file, event, waiter)
            return
        if watched.event != event:
            self._poll.modify(descriptor, event)
        watched.event, watched.waiter = event, waiter

    def release(self, file: socket.socket) -> None:
        """Stop waiting for a socket. It stays watched until its next event, so that the next `register` is faster."""
        if (watched := self._watched.get(file.fileno())) is not None:
            watched.waiter = None

    def unregister(self, file: socket.socket) -> None:
        self._poll.unregister(file.fileno())
        del self._watched[file.fileno()]

    def select(self, seconds: float) -> Iterator[object]:
        """Wait until sockets are ready; yield their waiters."""
        for descriptor, _ in self._poll.poll(seconds):
            watched = self._watched.get(descriptor)
            if watched is None:  # the caller has unregistered this socket while it handled an earlier one
                continue
            if watched.waiter is not None:
                yield watched.waiter
                continue
            del self._watched[descriptor]
            with contextlib.suppress(OSError):  # another thread has closed the socket
                self._poll.unregister(descriptor)

    def close(self) -> None:
        self._poll.close()


class _SelectorPoll:
    """The interface of `select.epoll` for systems without it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.unregister, self.close = self._selector.unregister, self._selector.close

    def register(self, file: int, event: int) -> None:
        with contextlib.suppress(KeyError):  # a closed socket had the same file descriptor
            self._selector.unregister(file)
        self._selector.register(file, _SELECTOR_EVENTS[event])

    def modify(self, file: int, event: int) -> None:
        self._selector.modify(file, _SELECTOR_EVENTS[event])

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        return [(key.fd, event) for key, event in self._selector.select(seconds)]


class Task(greenlet):
    """Runs functions one after the other. Resuming this task takes less time than starting a new task for each
    request."""

    def __init__(self, tasks: "Tasks") -> None:
        super().__init__()
        self._tasks = tasks
        self._loop = getcurrent()
        """The greenlet that runs while the task waits."""
        self.deadline = math.inf

    def run(self, function: Callable[[], object]) -> None:
        while True:
            self._tasks.run(self, function)
            del function  # the function refers to the last request, whose memory would otherwise stay in use
            function = self._loop.switch()

    def wait(self, file: socket.socket, event: int, deadline: float) -> bool:
        """Let the thread run other tasks; return whether the socket is ready before the deadline."""
        return self._tasks.wait(self, file, event, deadline)

    def sleep(self, deadline: float) -> bool:
        """Let the thread run other tasks; return TOO_LATE after the deadline, IN_TIME if the task is resumed before."""
        return self._tasks.sleep(self, deadline)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Let the thread of the task call a function, which must not wait. Any thread may call this."""
        self._tasks.call_soon(function)

    def call_in_thread(self, function: Callable[[], Result]) -> Result:
        return self._tasks.call_in_thread(self, function)

    def pause(self) -> bool:
        """Let the thread run other tasks until `switch` is called with IN_TIME or TOO_LATE; return this value."""
        return bool(self._loop.switch())


class Tasks:
    """The tasks of one thread. Only this thread may call the methods, except `call_soon`.

    Args:
        watcher: watches the sockets for which tasks wait. If the waiter of a ready socket is a task, the caller of
            `Watcher.select` must switch to this task with IN_TIME. If the waiter is this object, the caller must call
            `run_calls`.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.count = 0
        """The number of tasks that have not ended."""
        self._watcher = watcher
        self._idle_tasks: list[Task] = []
        """The tasks that run no function."""
        self._waiting_tasks: set[Task] = set()
        """The tasks that wait with a deadline."""
        self._calls: deque[Callable[[], object]] = deque()
        """The functions that other threads have passed to `call_soon`."""
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="task")
        self._wakers = socket.socketpair()
        for waker in self._wakers:
            waker.setblocking(False)
        watcher.register(self._wakers[0], READ, self)

    def start(self, function: Callable[[], object]) -> None:
        """Run a function until it waits for the first time, or ends."""
        self.count += 1
        task = self._idle_tasks.pop() if self._idle_tasks else Task(self)
        task.gr_context = None  # the function begins with an empty context
        task.switch(function)

    def run(self, task: Task, function: Callable[[], object]) -> None:
        """Run a function in a task to its end."""
        try:
            function()
        except Exception:
            logger.exception("a task failed")
        finally:
            self.count -= 1
        # after errors such as SystemExit, this line does not run, because they also end the task
        self._idle_tasks.append(task)

    def wait(self, task: Task, file: socket.socket, event: int, deadline: float) -> bool:
        task.deadline = deadline
        earlier_registration = self._watcher.find(file)
        self._watcher.register(file, event, task)
        self._waiting_tasks.add(task)
        try:
            return task.pause()
        finally:
            self._waiting_tasks.discard(task)
            if earlier_registration is not None:
                self._watcher.register(file, *earlier_registration)
            elif event == READ:
                self._watcher.release(file)
            else:  # a socket can nearly always be written, so the watcher would report it again and again
                self._watcher.unregister(file)

    def sleep(self, task: Task, deadline: float) -> bool:
        task.deadline = deadline
        self._waiting_tasks.add(task)
        try:
            return task.pause()
        finally:
            self._waiting_tasks.discard(task)

    def resume_late_tasks(self, now: float) -> None:
        """Resume the tasks whose deadlines have passed."""
        for task in [task for task in self._waiting_tasks if task.deadline <= now]:
            task.switch(TOO_LATE)

    def call_in_thread(self, task: Task, function: Callable[[], Result]) -> Result:
        future = self._pool.submit(copy_context().run, function)
        future.add_done_callback(lambda _: self.call_soon(partial(task.switch, IN_TIME)))
        task.pause()
        return future.result()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Let the thread call a function, which must not wait. Any thread may call this."""
        self._calls.append(function)
        # an error means that earlier bytes, which also wake the thread, are not read yet, or that `close` was called
        with contextlib.suppress(OSError):
            self._wakers[1].send(b"\0")

    def run_calls(self) -> None:
        """Call the functions that other threads have passed to `call_soon`."""
        with contextlib.suppress(BlockingIOError):
            self._wakers[0].recv(4096)
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Cancel the calls of `call_in_thread` that have not started, and close the sockets of `call_soon`.

        Tasks that still wait are never resumed.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        for waker in self._wakers:
            waker.close()
