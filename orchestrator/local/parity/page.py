"""docs/parity.md, from the table."""

from collections.abc import Iterator, Mapping

from orchestrator.local.parity.refusal import limits
from orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Row, Rows

HEAD = """# What becomes of each member of a request

The server on localhost ignores nothing in silence. Every member of every SageMaker request that it takes is

- **honoured**: it does what it does on AWS, with the values that the table names if it names any;
  *Needed* are those that AWS can do without in ways that are refused here;
- **no meaning**: it is about AWS's own machines, so it is stored and described back, and does nothing;
- **refused**: it would change what happens and is not done here. The request fails with a `ValidationException` that
  names the member, its value, and the reason or what to do instead. Empty values and `false` are not refused.

A row covers all that is below its member, unless that has rows of its own. For a list, rows are about each item.
Generated from `orchestrator/local/parity` by `make parity`.
"""


def render(table: Mapping[str, Rows]) -> str:
    """The page. Operations whose every member is as on AWS are one line together."""
    plain = [f"`{name}`" for name, rows in table.items() if _is_plain(rows)]
    parts = [HEAD]
    parts += [_section(name, rows) for name, rows in table.items() if not _is_plain(rows)]
    parts.append(f"## All others\n\nEvery member is honoured in {', '.join(sorted(plain))}.\n")
    return "\n".join(parts)


def _is_plain(rows: Rows) -> bool:
    return all(_is_plain(row.rows) if isinstance(row, Members) else row == Honoured() for row in rows.values())


def _section(operation: str, rows: Rows) -> str:
    lines = [f"| `{path}` | {verdict} | {meaning} |" for path, verdict, meaning in _lines(rows, "")]
    return "\n".join([f"## {operation}", "", "| member | here | what that means |", "|---|---|---|", *lines, ""])


def _lines(rows: Rows, path: str) -> Iterator[tuple[str, str, str]]:
    for name, row in rows.items():
        below = f"{path}.{name}" if path else name
        if isinstance(row, Members) and not _is_plain(row.rows):
            if row.most is not None:
                yield below, "honoured", f"at most {row.most}; {row.why}"
            yield from _lines(row.rows, below)
        else:
            yield below, *_verdict(row)


def _verdict(row: Row) -> tuple[str, str]:
    if isinstance(row, Members):
        return "honoured", Honoured().meaning
    if isinstance(row, Refused):
        return "refused", row.why
    if isinstance(row, NoMeaning):
        return "no meaning", row.meaning
    only = f" only {', '.join(f'`{value}`' for value in row.only)}" if row.only else ""
    numbers = f" {limits(row)}" if limits(row) else ""
    needed = ", needed" if row.needed else ""
    return f"honoured{only}{numbers}{needed}", "; otherwise: ".join(filter(None, (row.meaning, row.why)))
