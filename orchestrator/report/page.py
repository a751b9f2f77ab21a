"""The report page of a run: one HTML file without external resources. It is light or dark, like the reader's system."""

from collections.abc import Sequence
from html import escape

from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.report import svg
from microjobs_orchestrator.runs.journal import JournalEntry
from microjobs_orchestrator.runs.workflow import RunResults

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --line: #d5d8dd; --paper: #fff; --card: #f6f7f9;
  --blue: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa2ad; --line: #3a4048; --paper: #14171a;
  --card: #1d2126; --blue: #7aa8ff; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1rem; margin: 2rem 0 .5rem } .soft { color: var(--soft) }
.tiles, .plots { display: flex; flex-wrap: wrap; gap: 1rem }
.tiles > div, figure { background: var(--card); border-radius: 8px; padding: .8rem 1.2rem; margin: 0 }
.tiles b { display: block; font-size: 1.5rem } figure { flex: 1 1 22rem; max-width: 29rem; min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .4rem } figure img { width: 100%; border-radius: 4px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th:first-child, td:first-child, .texts th, .texts td { text-align: left } .texts td { overflow-wrap: anywhere }
.texts td:first-child { white-space: nowrap } .soft, th { overflow-wrap: anywhere }
th:last-child, td:last-child { padding-right: 0 } @media (max-width: 30rem) { th, td { padding-right: .5rem } }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--card); border-radius: 8px; padding: .8rem 1.2rem }
svg { width: 100%; font: 11px system-ui, sans-serif } svg text { fill: var(--soft) }
svg circle, svg rect { fill: var(--blue); fill-opacity: .75 } .axis { fill: none; stroke: var(--soft) }
.grid { stroke: var(--line) } .guide { stroke: var(--soft); stroke-dasharray: 4 4 }
"""


def make_section(title: str, content: str) -> str:
    """Return a heading and the content below it, which is HTML."""
    return f"<h2>{escape(title)}</h2>{content}"


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, has_texts: bool = False) -> str:
    """Return a table of numbers. If `has_texts` is set, the cells are texts, aligned left and wrapped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table{' class=texts' if has_texts else ''}><tr>{head}</tr>{body}</table>"


def make_page(
    results: RunResults, heading: str, entries: Sequence[JournalEntry], locations: Sequence[tuple[str, str]]
) -> str:
    """Return the page.

    Args:
        heading: the run's name and duration.
        entries: the steps and their durations.
        locations: pairs of a name and a URI or path, for all data that the run left; on AWS, also the run's cost.
    """
    times = [(entry.title, entry.seconds or 0.0, format_duration(entry.seconds or 0.0)) for entry in entries]
    log = "\n".join(results.log)
    parts = [
        f"<h1>{escape(results.title)}</h1><p class='soft'>{escape(heading)}</p>",
        *(block.to_html() for block in results.blocks),
        make_section("Log", f"<pre>{escape(log)}</pre>") if log else "",
        make_section("Time", f"<figure>{svg.draw_bars(times)}</figure>"),
        make_section("Locations", make_table(["data", "location"], locations, has_texts=True)),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(heading)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
