"""The score report, as text, JSON and a plot."""

import json
import logging
from pathlib import Path

from microjobs.files import write_text

from .scoring import Score

logger = logging.getLogger("microjobs")


def write_report(folder: Path, score: Score, *, with_targets: bool) -> None:
    """Write score-report.txt, as in the notebook, and report.json. With targets, also draw the plot."""
    line = f"Test MSE : {score.mse}" if with_targets else "Test MSE : not known, there are no targets"
    numbers: dict[str, float | int] = {"rows": score.rows}
    if with_targets:
        # Imported only if it is needed, because it takes long.
        from microjobs.plots import predicted_versus_target

        numbers |= {"mse": score.mse, "mae": score.mae}
        title = f"{score.rows} test rows, MSE {score.mse:.4g}"
        predicted_versus_target(folder / "predicted-versus-target.png", score.target, score.predicted, title)
    write_text(folder / "report.json", json.dumps(numbers, indent=1))
    write_text(folder / "score-report.txt", line)
    logger.info("%s", line)
