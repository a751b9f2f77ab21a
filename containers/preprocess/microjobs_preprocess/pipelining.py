"""Processing of a sequence in threads, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

MAX_THREADS = 8


def map_ahead(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield the function's results in order. Threads process the next items while the caller uses a result.

    At most two items per thread are in memory. Threads are fast enough, because numpy, pyarrow, and reads and writes of
    files release Python's GIL.
    """
    threads = min(len(os.sched_getaffinity(0)), MAX_THREADS)
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
