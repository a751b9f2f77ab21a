"""Exact medians of columns of any length, in bounded memory and over several hosts.

This is a radix selection: doubles become 64-bit keys with the same order. Each round counts the next digit, which is 16
bits, of the keys that begin with the bits found so far. Counts are integers, so the result does not depend on how the
rows are divided among the hosts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microjobs.arrays import Floats

DIGIT_BITS = 16
ROUND_COUNT = 64 // DIGIT_BITS

Histograms = dict[str, dict[int, NDArray[np.int64]]]
"""Number of keys for each value of the next digit, by column and by the bits before this digit."""


@dataclass(frozen=True)
class MedianSearch:
    """The search for one of the two middle values of a column.

    prefix: the first bits of the value's key, which earlier rounds have found.
    rank: index of the value among the sorted values whose keys begin with `prefix`.
    """

    prefix: int
    rank: int

    def narrow(self, histogram: NDArray[np.int64]) -> "MedianSearch":
        """Return the search whose prefix has one more digit."""
        ends = np.cumsum(histogram)
        digit = int(np.searchsorted(ends, self.rank, side="right"))
        return MedianSearch((self.prefix << DIGIT_BITS) | digit, self.rank - int(ends[digit] - histogram[digit]))


Searches = Mapping[str, tuple[MedianSearch, MedianSearch]]
"""The searches for the two middle values of each column. If the number of values is odd, the two searches are
for the same value."""


def start_searches(counts: Mapping[str, int]) -> Searches:
    """Return searches for the medians of columns with these numbers of values."""
    return {
        name: (MedianSearch(prefix=0, rank=(count - 1) // 2), MedianSearch(prefix=0, rank=count // 2))
        for name, count in counts.items()
    }


def make_empty_histograms(searches: Searches) -> Histograms:
    return {
        name: {search.prefix: np.zeros(1 << DIGIT_BITS, np.int64) for search in pair} for name, pair in searches.items()
    }


def count_digits(histograms: Histograms, blocks: Iterable[Mapping[str, Floats]], round_number: int) -> None:
    """Count the next digits of all values except NaN in the histograms."""
    for block in blocks:
        for name, column_histograms in histograms.items():
            keys = _to_keys(block[name][~np.isnan(block[name])])
            digits = keys >> np.uint64(64 - DIGIT_BITS * (round_number + 1))
            prefixes = digits >> np.uint64(DIGIT_BITS)
            for prefix, histogram in column_histograms.items():
                selected = digits[prefixes == prefix] & np.uint64((1 << DIGIT_BITS) - 1)
                histogram += np.bincount(selected.astype(np.int64), minlength=1 << DIGIT_BITS)


def narrow_searches(searches: Searches, histograms_of_hosts: Iterable[Histograms]) -> Searches:
    """Return the searches after one more round, from the histograms of all hosts."""
    total = make_empty_histograms(searches)
    for histograms in histograms_of_hosts:
        for name, column_histograms in histograms.items():
            for prefix, histogram in column_histograms.items():
                total[name][prefix] += histogram
    return {
        name: (low.narrow(total[name][low.prefix]), high.narrow(total[name][high.prefix]))
        for name, (low, high) in searches.items()
    }


def finish_searches(searches: Searches) -> dict[str, float]:
    """Return the medians after the last round: the mean of the two middle values."""
    return {name: float(_to_floats([low.prefix, high.prefix]).mean()) for name, (low, high) in searches.items()}


SIGN_BIT = np.uint64(1 << 63)


def _to_keys(values: Floats) -> NDArray[np.uint64]:
    bits = np.ascontiguousarray(values).view(np.uint64)
    return np.where(bits & SIGN_BIT, ~bits, bits | SIGN_BIT)


def _to_floats(keys: list[int]) -> Floats:
    array = np.array(keys, np.uint64)
    return np.where(array & SIGN_BIT, array ^ SIGN_BIT, ~array).view(np.float64)
