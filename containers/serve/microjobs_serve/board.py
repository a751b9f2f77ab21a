"""Numbers that all workers share: an anonymous map made before they are forked, a row of it for each.

Each worker adds to its own row without asking anybody, and whoever wants totals adds the rows up. It takes no file,
and a count costs a tenth of a microsecond.
"""

import mmap
import multiprocessing

import numpy as np
from numpy.typing import NDArray

ROWS = 1024
"""Room for workers that are started again; untouched rows cost no memory."""


class Board:
    """`cells` are doubles; a worker's own begin at `row`. Row 0 is the main process's."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.row = 0
        self._memory = mmap.mmap(-1, ROWS * width * 8)
        self.cells = memoryview(self._memory).cast("d")
        self._taken = multiprocessing.Value("i", 0)

    def claim(self) -> None:
        """Take a row for this worker."""
        with self._taken.get_lock():
            self._taken.value += 1
            self.row = (1 + (self._taken.value - 1) % (ROWS - 1)) * self.width

    def totals(self) -> NDArray[np.float64]:
        """The sums over all rows, shape (width,)."""
        totals: NDArray[np.float64] = np.frombuffer(self._memory, np.float64).reshape(ROWS, self.width).sum(axis=0)
        return totals
