"""Counters that all workers share.

The counters are in an anonymous memory map, which the main process creates before it forks the workers. Each worker
has its own row and adds to it without a lock between processes; the totals are the sums over all rows. One addition
takes 0.1 microseconds and needs no file.
"""

import mmap
import multiprocessing

import numpy as np
from numpy.typing import NDArray

ROWS = 1024
"""One row for the main process and one per worker, restarted workers included. Unused rows use no memory."""


class SharedCounters:
    """A table of doubles. Row 0 belongs to the main process.

    Args:
        width: number of counters in a row.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.row_offset = 0
        """Index in `cells` of the first counter of this process's row."""
        self._memory = mmap.mmap(-1, ROWS * width * 8)
        self.cells = memoryview(self._memory).cast("d")
        """All rows, one after the other."""
        self._rows_claimed = multiprocessing.Value("i", 0)

    def claim_row(self) -> None:
        """Assign a row to this worker. After the last row, workers share rows again, starting with row 1."""
        with self._rows_claimed.get_lock():
            self._rows_claimed.value += 1
            self.row_offset = (1 + (self._rows_claimed.value - 1) % (ROWS - 1)) * self.width

    def totals(self) -> NDArray[np.float64]:
        """Return the sums over all rows, shape (width,)."""
        totals: NDArray[np.float64] = np.frombuffer(self._memory, np.float64).reshape(ROWS, self.width).sum(axis=0)
        return totals
