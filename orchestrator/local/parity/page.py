"""Generator of the page docs/maintaining/parity.md from the parity table."""

from collections.abc import Iterator, Mapping

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows, format_limits
from microjobs_orchestrator.local.protocols.models import load_service_model

PAGE_HEAD = """# Treatment of each member of a request

The local server ignores nothing silently. For each member of each supported request, this page states one of:

- **honoured**: it has the effect that it has on AWS. If the table names values, others are refused. The word *required*
  marks a member that is optional on AWS, but not on this server;
- **no effect**: it concerns only AWS's own machines and accounts. It is accepted, and Describe of jobs, models and
  endpoints returns it;
- **refused**: it would have an effect that is not supported. The error names the member, its value, and the reason or
  a remedy. Empty values and `false` are accepted.

A row covers all members below its member, unless these have their own rows. For a list, rows are about each item.
`make parity` generates this page from `orchestrator/local/parity`.
"""


def render(table: Mapping[str, Mapping[str, Rows]]) -> str:
    return "\n".join([PAGE_HEAD, *(_render_service(service, operations) for service, operations in table.items())])


def _render_service(service: str, operations: Mapping[str, Rows]) -> str:
    """Return the part about a service. Operations whose members are all as on AWS share one line."""
    model = load_service_model(service)
    parts = [f"## {model.metadata['serviceId']}", ""]
    parts += [_render_operation(name, rows) for name, rows in operations.items() if not _is_plain(rows)]
    plain = [name for name, rows in operations.items() if _is_plain(rows)]
    parts += [f"Every member is honoured as on AWS in {_format_names(sorted(plain))}.\n"] if plain else []
    absent = sorted(set(model.operation_names) - operations.keys())
    return "\n".join([*parts, f"Not supported: {_format_names(absent)}.\n"])


def _format_names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_plain(rows: Rows) -> bool:
    return all(_is_plain(row.rows) if isinstance(row, Members) else row == Honoured() for row in rows.values())


def _render_operation(operation: str, rows: Rows) -> str:
    """Return a table of the members; those with the same treatment share a row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, *cells in _list_table_rows(rows, ""):
        groups.setdefault((cells[0], cells[1]), []).append(path)
    plain = groups.pop(_describe(Honoured()), [])
    lines = [f"| {_format_names(paths)} | {treatment} | {meaning} |" for (treatment, meaning), paths in groups.items()]
    lines += ["", f"Honoured as on AWS: {_format_names(plain)}."] if plain else []
    return "\n".join([f"### {operation}", "", "| member | treatment | meaning |", "|---|---|---|", *lines, ""])


def _list_table_rows(rows: Rows, path: str) -> Iterator[tuple[str, str, str]]:
    for name, row in rows.items():
        member_path = f"{path}.{name}" if path else name
        if isinstance(row, Members) and not _is_plain(row.rows):
            yield from _list_table_rows(row.rows, member_path)
        else:
            yield member_path, *_describe(row)


def _describe(row: Row) -> tuple[str, str]:
    if isinstance(row, Members):
        return "honoured", Honoured().meaning
    if isinstance(row, Refused):
        return "refused", row.reason
    if isinstance(row, NoEffect):
        return "no effect", row.meaning
    values = f"only {', '.join(f'`{value}`' for value in row.values)}" if row.values else ""
    treatment = " ".join(filter(None, ("honoured", values, format_limits(row))))
    meaning = "; otherwise: ".join(filter(None, (row.meaning, row.reason)))
    return f"{treatment}{', required' if row.required else ''}", meaning
