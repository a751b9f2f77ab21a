"""docs/maintaining/parity.md, from the table."""

from collections.abc import Iterator, Mapping

from microjobs_orchestrator.local.parity.refusal import limits
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Row, Rows
from microjobs_orchestrator.local.protocols.models import service_model

HEAD = """# What becomes of each member of a request

The local server ignores nothing silently. For every member of every request that it accepts, this page says
which of these applies:

- **honoured**: it does what it does on AWS, with the values that the table names if it names any;
  *needed*: optional on AWS, required here;
- **no meaning**: it is about AWS's own machines and accounts. It is accepted and has no effect; jobs, models and
  endpoints describe it back;
- **refused**: it would change what happens, and is not supported. The request fails with an error that
  names the member, its value, and the reason or what to do instead. Empty values and `false` are not refused.

A row covers all that is below its member, unless that has rows of its own. For a list, rows are about each item.
Generated from `orchestrator/local/parity` by `make parity`.
"""

TITLES: Mapping[str, str] = {
    "sagemaker": "SageMaker",
    "sagemaker-runtime": "SageMaker Runtime",
    "s3": "S3",
    "logs": "CloudWatch Logs",
    "sts": "STS",
    "iam": "IAM",
    "ecr": "ECR",
}


def render(table: Mapping[str, Mapping[str, Rows]]) -> str:
    """Render the page."""
    return "\n".join([HEAD, *(_service(service, operations) for service, operations in table.items())])


def _service(service: str, operations: Mapping[str, Rows]) -> str:
    """The part about a service. Operations whose every member is as on AWS share one line."""
    parts = [f"## {TITLES[service]}", ""]
    parts += [_operation(name, rows) for name, rows in operations.items() if not _is_plain(rows)]
    plain = [name for name, rows in operations.items() if _is_plain(rows)]
    parts += [f"Every member is honoured as on AWS in {_code(sorted(plain))}.\n"] if plain else []
    absent = sorted(set(service_model(service).operation_names) - operations.keys())
    return "\n".join([*parts, f"Not supported: {_code(absent)}.\n"])


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_plain(rows: Rows) -> bool:
    return all(_is_plain(row.rows) if isinstance(row, Members) else row == Honoured() for row in rows.values())


def _operation(operation: str, rows: Rows) -> str:
    """A table of the members; those of which the same is to be said share a row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, *rest in _lines(rows, ""):
        groups.setdefault((rest[0], rest[1]), []).append(path)
    plain = groups.pop(_verdict(Honoured()), [])
    lines = [f"| {_code(paths)} | {verdict} | {meaning} |" for (verdict, meaning), paths in groups.items()]
    lines += ["", f"Honoured as on AWS: {_code(plain)}."] if plain else []
    return "\n".join([f"### {operation}", "", "| member | here | what that means |", "|---|---|---|", *lines, ""])


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
