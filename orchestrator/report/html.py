"""HTML fragments of the report page."""

from collections.abc import Sequence
from html import escape


def section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def figure(title: str, content: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{content}</figure>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: bool = False) -> str:
    """Return a table.

    Args:
        texts: the cells are texts: aligned at the left, and wrapped where necessary. Otherwise they are numbers.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table{' class=texts' if texts else ''}><tr>{head}</tr>{body}</table>"
