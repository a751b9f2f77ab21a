"""Text as a terminal shows it, and text without control sequences.

Progress bars (tqdm, Keras) rewrite their line with carriage returns, backspaces and cursor moves. `render` applies
them and returns the text that remains. `strip_controls` removes every control sequence, so that text of a job can be
printed.
"""

import re
from collections.abc import Callable, Mapping

MAX_COLUMNS = 1000
"""Limit of one control sequence. A cursor move stops at this column, or at the end of a longer row. A sequence replaces
at most this number of characters by spaces."""
MAX_ROWS = 64
"""The cursor moves at most this number of rows above or below the first row."""

_CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"  # other escape sequences
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"  # other control characters, without the tab
)
"""Matches one control sequence or character. Each alternative stops at the next escape character, so that a search
takes linear time."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def strip_controls(text: str, *, keep_colours: bool = False) -> str:
    """Remove control characters and sequences, except tabs, newlines and, if `keep_colours` is set, colours (SGR)."""

    def replace(match: re.Match[str]) -> str:
        is_kept = match[0] == "\n" or (keep_colours and _COLOUR.fullmatch(match[0]))
        return match[0] if is_kept else ""

    return _CONTROL.sub(replace, escape_bytes(text))


def escape_bytes(text: str) -> str:
    """Replace surrogates, which represent invalid UTF-8 bytes, with text such as `\\xff`: no encoder accepts them."""
    return text if text.isascii() else _SURROGATE.sub(_escape_surrogate, text)


def _escape_surrogate(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def render_line(line: str) -> str:
    """Return the text of a log line after all rewrites. Colours remain if they are its only control sequences."""
    content = line.rstrip("\r")
    if all(_COLOUR.fullmatch(match[0]) for match in _CONTROL.finditer(content)):
        return content
    return render(line)


def render_states(line: str) -> list[str]:
    """Return a line after all rewrites: as its program intended it and, if this differs, as a terminal shows it.

    The two texts differ if a shorter text does not cover the end of a longer one: `loss=10.5`, rewritten as `loss=9.5`,
    looks like `loss=9.55`.
    """
    if _CONTROL.search(line) is None:
        return [line]
    return list(dict.fromkeys((render(line, rewrites=True), render(line))))


def render(line: str, *, rewrites: bool = False) -> str:
    """Return the text that a line leaves on a terminal; several rows if the line moves the cursor up or down.

    If `rewrites` is set, text at the start of a row replaces the whole row.
    """
    screen, position = _Screen(rewrites=rewrites), 0
    for match in _CONTROL.finditer(line):
        screen.write(line[position : match.start()])
        screen.apply(match)
        position = match.end()
    screen.write(line[position:])
    return screen.format_text()


class _Screen:
    """The rows that one line of output has changed."""

    def __init__(self, *, rewrites: bool) -> None:
        self._rewrites = rewrites
        self._rows: dict[int, list[str]] = {}
        self._row = 0
        self._column = 0
        self._saved = (0, 0)

    def write(self, text: str) -> None:
        if text:
            cells = self._get_cells()
            if self._rewrites and self._column == 0:
                cells.clear()
            self._column = min(self._column, max(MAX_COLUMNS, len(cells)))
            cells.extend(" " * (self._column - len(cells)))
            cells[self._column : self._column + len(text)] = text
            self._column += len(text)

    def apply(self, match: re.Match[str]) -> None:
        """Apply a control character or sequence. A sequence that is not in `_ACTIONS` changes nothing."""
        if (action := _ACTIONS.get(match["final"] or match[0])) is not None:
            first = (match["parameters"] or "").partition(";")[0]
            action(self, int(first) if first.isdigit() and len(first) < 6 else 0)

    def format_text(self) -> str:
        rows = ("".join(self._rows[row]).rstrip() for row in sorted(self._rows))
        return "\n".join(row for row in rows if row)

    def _get_cells(self) -> list[str]:
        return self._rows.setdefault(self._row, [])

    def _move(self, rows: int, columns: int) -> None:
        limit = max(MAX_COLUMNS, len(self._get_cells()))
        self._row = min(MAX_ROWS, max(-MAX_ROWS, self._row + rows))
        self._column = min(limit, max(0, self._column + columns))

    def _save(self) -> None:
        self._saved = self._row, self._column

    def _restore(self) -> None:
        self._row, self._column = self._saved

    def _blank(self, count: int) -> None:
        """Replace cells from the cursor on by spaces. The rest of the row keeps its place."""
        cells, start, count = self._get_cells(), self._column, min(count, MAX_COLUMNS)
        cells[start : start + count] = " " * min(count, max(0, len(cells) - start))

    def _remove(self, count: int) -> None:
        """Remove cells from the cursor on. The rest of the row moves to the left."""
        cells = self._get_cells()
        if len(cells) <= MAX_COLUMNS:  # long rows are not changed, because each removal moves the rest of the row
            del cells[self._column : self._column + count]

    def _erase_in_row(self, mode: int) -> None:
        """Erase the row's cells from the cursor to the end (0), up to the cursor (1), or all cells (2)."""
        cells = self._get_cells()
        if mode == 0:
            del cells[self._column :]
        elif mode > 1:
            cells.clear()
        elif self._column < MAX_COLUMNS:
            cells[: self._column + 1] = " " * min(self._column + 1, len(cells))

    def _erase(self, mode: int) -> None:
        """Erase the rows below the cursor (0), above the cursor (1), or all rows (2)."""
        for row in list(self._rows):
            if mode > 1 or (row > self._row and mode == 0) or (row < self._row and mode == 1):
                del self._rows[row]
        self._erase_in_row(mode)


_ACTIONS: Mapping[str, Callable[[_Screen, int], None]] = {
    "\r": lambda screen, _: screen._move(0, -screen._column),
    "\b": lambda screen, _: screen._move(0, -1),
    "\x1b7": lambda screen, _: screen._save(),
    "\x1b8": lambda screen, _: screen._restore(),
    "s": lambda screen, _: screen._save(),
    "u": lambda screen, _: screen._restore(),
    "A": lambda screen, count: screen._move(-(count or 1), 0),
    "B": lambda screen, count: screen._move(count or 1, 0),
    "C": lambda screen, count: screen._move(0, count or 1),
    "D": lambda screen, count: screen._move(0, -(count or 1)),
    "E": lambda screen, count: screen._move(count or 1, -screen._column),
    "F": lambda screen, count: screen._move(-(count or 1), -screen._column),
    "G": lambda screen, column: screen._move(0, (column or 1) - 1 - screen._column),
    "H": lambda screen, _: screen._move(0, -screen._column),
    "J": lambda screen, mode: screen._erase(mode),
    "K": lambda screen, mode: screen._erase_in_row(mode),
    "P": lambda screen, count: screen._remove(count or 1),
    "X": lambda screen, count: screen._blank(count or 1),
}
"""Actions by control character, or by the last character of a control sequence. A missing parameter is 0."""
