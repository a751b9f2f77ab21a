"""The report of a run: one HTML file that needs nothing else, light or dark as the reader's system is."""

import base64
from collections.abc import Sequence
from html import escape

from microjobs_orchestrator.durations import duration
from microjobs_orchestrator.report import svg
from microjobs_orchestrator.report.summary import aligned, number
from microjobs_orchestrator.runs.journal import JournalEntry
from microjobs_orchestrator.runs.progress import Trial, short
from microjobs_orchestrator.runs.results import RunResults

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


def page(results: RunResults, heading: str, steps: Sequence[JournalEntry], places: Sequence[tuple[str, str]]) -> str:
    """The page's text.

    Args:
        results: the workflow's.
        heading: the run's name and how long it took.
        steps: what was done and how long it took.
        places: what lies where.
    """
    parts = [
        f"<h1>{escape(results.title)}</h1><p class='soft'>{escape(heading)}</p>",
        _tiles(results.figures),
        _plots(results),
        _section("Trials, best first", _trials(results.trials, results.objective)) if results.trials else "",
        _section("Predictions of the endpoint", _predictions(results)),
        _section("Batch score", f"<pre>{escape(results.score_report)}</pre>"),
        _section("Log", f"<pre>{escape(chr(10).join(results.table))}</pre>") if results.table else "",
        _section("Time", f"<figure>{svg.bars(_times(steps))}</figure>"),
        _section("Where everything lies", _table(["what", "where"], places, texts=True)),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(heading)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _tiles(figures: Sequence[tuple[str, float]]) -> str:
    tiles = (f"<div><span class='soft'>{escape(name)}</span><b>{number(value)}</b></div>" for name, value in figures)
    return f"<p></p><div class='tiles'>{''.join(tiles)}</div>"


def _plots(results: RunResults) -> str:
    targets, predicted = results.scored
    figures = [
        _figure(
            f"Predicted and target, all {len(targets)} test rows",
            svg.scatter(list(zip(targets, predicted, strict=True)), "target", "predicted", diagonal=True),
        )
    ]
    if results.trials:
        figures.append(_figure("Trials", _trial_plot(results.trials, results.objective)))
    for picture in results.pictures:
        data = base64.b64encode(picture.png).decode()
        figures.append(
            _figure(picture.title, f"<img alt='{escape(picture.title)}' src='data:image/png;base64,{data}'>")
        )
    return _section("Plots", f"<div class='plots'>{''.join(figures)}</div>")


def _figure(title: str, content: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{content}</figure>"


def _trial_plot(trials: Sequence[Trial], objective: str) -> str:
    points = [(float(trial.hyperparameters["learning_rate"]), trial.objective or 0.0) for trial in trials]
    labels = [" ".join(f"{name} {short(value)}" for name, value in trial.hyperparameters.items()) for trial in trials]
    return svg.scatter(points, "learning rate", objective, log_x=True, labels=labels)


def _trials(trials: Sequence[Trial], objective: str) -> str:
    names = list(trials[0].hyperparameters)
    prefix = trials[0].name.rsplit("-", 2)[0]
    rows = [
        [
            trial.name.removeprefix(f"{prefix}-"),
            f"{trial.objective:.6g}",
            *(short(trial.hyperparameters[name]) for name in names),
        ]
        for trial in trials
    ]
    # With spaces, so that long names can be wrapped on a narrow screen.
    table = _table(["training job", objective, *(name.replace("_", " ") for name in names)], rows)
    return f"{table}<p class='soft'>The names of these training jobs begin with {escape(prefix)}-.</p>"


def _predictions(results: RunResults) -> str:
    numbers = map(str, range(len(results.targets)))
    columns = (numbers, aligned(results.predictions), aligned(results.targets))
    return _table(["row", "predicted", "target"], list(zip(*columns, strict=True)))


def _times(steps: Sequence[JournalEntry]) -> list[tuple[str, float, str]]:
    return [(done.title, done.seconds or 0.0, duration(done.seconds or 0.0)) for done in steps]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: bool = False) -> str:
    """A table of numbers, or of texts, which are aligned at the left and wrapped wherever they must be."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table{' class=texts' if texts else ''}><tr>{head}</tr>{body}</table>"
