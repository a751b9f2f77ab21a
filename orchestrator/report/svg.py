"""Plots as SVG text. The page's style sheet has the colours, so that plots are light or dark like the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 320
"""The size of a plot, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 44
"""The widths of the margins around the axes, in pixels."""


@dataclass(frozen=True)
class Axis:
    """Maps a range of values to a range of pixels."""

    low: float
    """The lowest value."""
    high: float
    """The highest value."""
    start: float
    """The pixel of the lowest value."""
    end: float
    """The pixel of the highest value."""
    logarithmic: bool = False

    def to_pixels(self, value: float) -> float:
        """Return the pixel of a value."""
        scale: Callable[[float], float] = math.log10 if self.logarithmic else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return round(self.start + share * (self.end - self.start), 1)

    def list_ticks(self) -> list[float]:
        """Return round values: 1, 2 and 5 times powers of ten; on a linear axis, multiples of one of these values."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        else:
            step = _choose_step((self.high - self.low) / 5)
            first = math.ceil(self.low / step)
            values = [index * step for index in range(first, math.floor(self.high / step) + 1)]
        return [value for value in values if self.low <= value <= self.high]


def _choose_step(min_step: float) -> float:
    """Return the smallest round value that is at least `min_step`."""
    power = 10.0 ** math.floor(math.log10(min_step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= min_step * 0.999)


def make_axis(values: Sequence[float], start: float, end: float, *, logarithmic: bool = False) -> Axis:
    """Return an axis that shows all values with some space around them."""
    low, high = min(values), max(values)
    if logarithmic and low > 0:
        return Axis(low / 1.2, high * 1.2, start, end, logarithmic=True)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return Axis(low - margin, high + margin, start, end)


def draw_scatter(
    points: Sequence[tuple[float, float]],
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
    log_x: bool = False,
    labels: Sequence[str] = (),
) -> str:
    """Return a scatter plot.

    Args:
        diagonal: draw the diagonal, and give both axes the same range.
        log_x: make the x axis logarithmic, if all its values are positive.
        labels: tooltips of the points.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if diagonal:
        xs = ys = xs + ys
    x_axis = make_axis(xs, LEFT, WIDTH - RIGHT, logarithmic=log_x)
    y_axis = make_axis(ys, HEIGHT - BOTTOM, TOP)
    parts = [_draw_frame(x_axis, y_axis, x_label, y_label)]
    if diagonal:
        parts.append(
            f'<line class="guide" x1="{x_axis.start}" y1="{y_axis.start}" x2="{x_axis.end}" y2="{y_axis.end}"/>'
        )
    for number, (x, y) in enumerate(points):
        title = f"<title>{escape(labels[number])}</title>" if labels else ""
        parts.append(f'<circle cx="{x_axis.to_pixels(x)}" cy="{y_axis.to_pixels(y)}" r="3.5">{title}</circle>')
    return _make_svg(HEIGHT, parts)


def draw_bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Return a bar chart. Each row has the name, the value and the text of a bar."""
    max_value = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for number, (name, value, text) in enumerate(rows):
        y, length = 8 + number * 24, max(1.0, round(value / max_value * 200, 1))
        parts.append(f'<text x="130" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="138" y="{y}" width="{length}" height="16" rx="2"/>')
        parts.append(f'<text x="{144 + length}" y="{y + 12}">{escape(text)}</text>')
    return _make_svg(16 + 24 * len(rows), parts)


def _draw_frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> str:
    bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    parts += [
        f'<text x="{x_axis.to_pixels(value)}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        for value in x_axis.list_ticks()
    ]
    for value in y_axis.list_ticks():
        y = y_axis.to_pixels(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    x_middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{x_middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def _make_svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
