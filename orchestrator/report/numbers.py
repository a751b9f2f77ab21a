"""Formats of numbers in results."""

from collections.abc import Sequence

MAX_CHARACTERS = 6
"""Length of an aligned number: ten of them fit into a line."""


def format_number(value: float) -> str:
    """Format one number: a loss as 3054.33, a weight as 0.3067."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def align(values: Sequence[float]) -> list[str]:
    """Format numbers of one line with the same number of decimals, as many as MAX_CHARACTERS allows."""
    for decimals in (4, 3, 1, 0):
        texts = [f"{value:.{decimals}f}" for value in values]
        if all(len(text) <= MAX_CHARACTERS for text in texts):
            return texts
    return [f"{value:.0e}" for value in values]
