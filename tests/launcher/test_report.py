"""Tests of a run's summary and report: the summary fits a screen, and the report has no external resources."""

import io
import json
import re
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from microjobs_orchestrator.durations import format_duration
from microjobs_orchestrator.launch import make_summary, shorten_path
from microjobs_orchestrator.report import svg
from microjobs_orchestrator.report.blocks import (
    BatchScoreReport,
    Figures,
    Metrics,
    Picture,
    PredictionPlot,
    Predictions,
    TrialPlot,
    Trials,
    align_numbers,
    format_number,
)
from microjobs_orchestrator.report.page import make_page
from microjobs_orchestrator.runs.journal import JournalEntry
from microjobs_orchestrator.runs.trials import Trial
from microjobs_orchestrator.runs.workflow import Location, RunResults
from microjobs_orchestrator.workflows.housing import Options, run_housing
from tests.launcher.cloud import PNG
from tests.launcher.conftest import StartRun
from tests.local.console.browsers import find_chromium

HEADING = "housing-20261122-013229  this machine, runtime docker  1 min 32 s"
BASE_URI = "s3://sagemaker-us-east-1-000000000000/housing-20261122-013229"
TRIALS = tuple(
    Trial(
        f"housing-20261122-013229-tune-{number:03}-abcd1234",
        "Completed",
        3000.123456 + number,
        {"learning_rate": str(0.0123456789 * number), "epochs": "42", "batch_size": "177"},
    )
    for number in range(1, 7)
)
RESULTS = RunResults(
    "housing, tensorflow",
    [
        Metrics([("Test MSE, trained", 3054.334869), ("Test MSE, tuned", 2891.20003)]),
        Figures(
            [
                PredictionPlot([1.0, 2.0, 3.0], [1.5, 2.5, 2.0]),
                TrialPlot(TRIALS, "learning_rate", "val_loss"),
                Picture("Learning curve", PNG),
            ]
        ),
        Trials(TRIALS, "val_loss"),
        Predictions(
            [159.81234, -1234.5678, 0.001234, 145.1, 159.2, 262.1, 276.3, 132.4, 92.5, 0.0],
            [134.0, 183.0, 200.0, 210.0, 180.0, 261.0, 302.0, 59.0, 281.0, 137.0],
        ),
        BatchScoreReport("Test MSE : <2891.2>"),
    ],
    [
        Location("data", f"{BASE_URI}/train"),
        Location("model", f"{BASE_URI}/models/x/output/model.tar.gz", in_summary=True),
    ],
)
LOCATIONS = [
    ("S3", BASE_URI),
    ("disk", f".microjobs/s3/{BASE_URI.removeprefix('s3://')}"),
    ("model", f"models/{TRIALS[0].name}/output/model.tar.gz"),
    ("report", "/home/somebody/with/a/long/way/to/the/clone/.microjobs/runs/housing-20261122-013229/report.html"),
]
STEPS = [JournalEntry("train", "Training", "TrainingJob", "job", 4.2), JournalEntry("tune", "Tuning", "", "job", 61.0)]


def render_summary(results: RunResults) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=80).print(make_summary(results, HEADING, LOCATIONS))
    return screen.getvalue().splitlines()


def test_summary_fits_a_screen() -> None:
    lines = render_summary(RESULTS)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_summary_shows_metrics_trials_and_locations() -> None:
    text = "\n".join(render_summary(RESULTS))
    for expected_text in (
        "3054.33",
        "2891.20",
        "val_loss",
        "001-abcd1234",
        "0.01235",
        "160",
        "-1235",
        "model",
        BASE_URI,
    ):
        assert expected_text in text
    assert "004-abcd1234" not in text
    assert f"disk    {LOCATIONS[1][1]}\n" in text
    assert "…" not in text


def test_summary_without_tuning_has_no_trials() -> None:
    assert "val_loss" not in "\n".join(
        render_summary(replace(RESULTS, blocks=[item for item in RESULTS.blocks if not isinstance(item, Trials)]))
    )


@pytest.mark.parametrize(("value", "text"), [(3054.334, "3054.33"), (0.30671, "0.3067"), (-1234.5, "-1234.50")])
def test_number_has_significant_decimals(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.30671, 1.14641], ["0.3067", "1.1464"]),
        ([85.989, 9.99999, 147.26], ["86.0", "10.0", "147.3"]),
        ([-1.23456, 9.99999], ["-1.235", "10.000"]),
        ([-999.96, 1.0], ["-1000", "1"]),
        ([123456.0, 1.0], ["123456", "1"]),
        ([1234567.0, 1.0], ["1e+06", "1e+00"]),
    ],
)
def test_aligned_numbers_have_the_same_decimals(values: list[float], texts: list[str]) -> None:
    assert align_numbers(values) == texts


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.13, "4.1 s"), (59.99, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")]
)
def test_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


class PageParser(HTMLParser):
    """A parser that collects the addresses on a page, and the elements that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "link", "line", "circle", "rect", "path"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open_tags and self.open_tags[-1] == tag:
            self.open_tags.pop()


def test_page_has_no_external_resources() -> None:
    text = make_page(RESULTS, HEADING, STEPS, LOCATIONS)
    parser = PageParser()
    parser.feed(text)
    assert parser.open_tags == []
    assert len(parser.addresses) == 1
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert re.findall(r"https?:|@import|url\(|<script|<link", text) == []


def test_predictions_are_plotted_once(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run()
    results = run_housing(run, Options(tuning=False), tmp_path)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", make_page(results, HEADING, STEPS, LOCATIONS))
    assert [caption for caption in captions if "redict" in caption] == [captions[0]]


def test_locations_are_texts_and_trials_are_numbers() -> None:
    text = make_page(RESULTS, HEADING, STEPS, LOCATIONS)
    assert "<table class=texts><tr><th>data</th><th>location</th></tr>" in text
    assert "<table><tr><th>training job</th>" in text


MEASURING_SCRIPT = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
const cells = [...document.querySelectorAll(".texts td")].map(e => getComputedStyle(e).textAlign);
document.title = JSON.stringify({
  width: innerWidth, page: document.documentElement.scrollWidth, wide: wide.map(e => e.tagName),
  scrolling: [...document.querySelectorAll("*")].filter(e => !(e instanceof SVGElement))
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.tagName), cells: [...new Set(cells)],
});
parent.postMessage(document.title, "*");
</script>"""
FRAME_PAGE = """<title></title><iframe src="report.html" style="border:0;width:{width}px;height:3000px"></iframe>
<script>onmessage = event => {{ document.title = event.data }}</script>"""


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_overflows_in_a_browser(width: int, tmp_path: Path) -> None:
    if (chromium := find_chromium()) is None:
        pytest.skip("chromium is not installed")
    (tmp_path / "report.html").write_text(
        make_page(RESULTS, HEADING, STEPS, LOCATIONS).replace("</body>", f"{MEASURING_SCRIPT}</body>")
    )
    # The report is in a frame, because a window is at least 500 pixels wide.
    (tmp_path / "frame.html").write_text(FRAME_PAGE.format(width=width))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    html = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    match = re.search(r"<title>(.*?)</title>", html)
    assert match is not None
    measurements = json.loads(unescape(match[1]))
    assert measurements == {"width": width, "page": width, "wide": [], "scrolling": [], "cells": ["left"]}


def test_page_supports_dark_mode() -> None:
    assert "prefers-color-scheme: dark" in make_page(RESULTS, HEADING, STEPS, LOCATIONS)


def test_page_escapes_output_of_jobs() -> None:
    text = make_page(RESULTS, HEADING, STEPS, LOCATIONS)
    assert "Test MSE : &lt;2891.2&gt;" in text
    assert "<2891.2>" not in text


def test_page_shows_trials_predictions_and_times() -> None:
    text = make_page(RESULTS, HEADING, STEPS, LOCATIONS)
    assert text.count("abcd1234") >= 6
    prefix_note = "begin with housing-20261122-013229-tune-."
    for expected_text in ("1 min 01 s", "<td>134.0</td>", "3054.33", "learning rate", prefix_note, "report.html"):
        assert expected_text in text, expected_text
    assert re.findall(r'width="([\d.]+)" height="16"', text) == ["13.8", "200.0"]  # the bars stand for 4.2 s and 61 s


def test_scatter_places_points_inside_its_frame() -> None:
    text = svg.draw_scatter([(0.001, -5.0), (0.2, 1e6)], "x", "y", log_x=True)
    points = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert points[0][0] < points[1][0]
    assert points[0][1] > points[1][1]
    assert all(svg.LEFT <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT - svg.BOTTOM for x, y in points)
    left, right = map(float, re.findall(r'<line class="grid" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', text)[0])
    assert f'<text x="{(left + right) / 2}" y="{svg.HEIGHT - 8}" text-anchor="middle">x</text>' in text


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-1e-9, 1e-9], [1e6, 2e6], [0.0, 0.7], [0.0, 40.0]])
def test_axis_has_round_ticks_within_its_range(values: list[float]) -> None:
    axis = svg.make_axis(values, 0, 100)
    ticks = axis.list_ticks()
    assert 2 <= len(ticks) <= 12
    assert all(0 <= axis.to_pixels(tick) <= 100 for tick in ticks)
    assert f"{ticks[1] - ticks[0]:.3e}".partition("e")[0] in ("1.000", "2.000", "5.000")


def test_paths_below_the_current_folder_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shorten_path(tmp_path / "runs" / "report.html") == "runs/report.html"
    assert shorten_path(Path("/elsewhere/report.html")) == "/elsewhere/report.html"
