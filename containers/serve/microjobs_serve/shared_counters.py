"""Counters that all workers share.

They are an anonymous memory map that exists before the workers are forked. Each worker adds to a row of its own,
without a lock between processes, and the totals are the sums over all rows. Counting takes a tenth of a microsecond and
needs no file.
"""

import mmap
import multiprocessing

import numpy as np
from numpy.typing import NDArray

ROWS = 1024
"""One row for the main process and one per worker, restarted workers included. Unused rows take no memory."""


class SharedCounters:
    """A table of doubles in `cells`. Row 0 is the main process's; a worker's row begins at the index `row_offset`."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.row_offset = 0
        self._memory = mmap.mmap(-1, ROWS * width * 8)
        self.cells = memoryview(self._memory).cast("d")
        self._rows_claimed = multiprocessing.Value("i", 0)

    def claim_row(self) -> None:
        """Assign a row to this worker."""
        with self._rows_claimed.get_lock():
            self._rows_claimed.value += 1
            self.row_offset = (1 + (self._rows_claimed.value - 1) % (ROWS - 1)) * self.width

    def totals(self) -> NDArray[np.float64]:
        """Return the sums over all rows, shape (width,)."""
        totals: NDArray[np.float64] = np.frombuffer(self._memory, np.float64).reshape(ROWS, self.width).sum(axis=0)
        return totals
