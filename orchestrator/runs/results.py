"""What a workflow came to: what the summary and the report show."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from microjobs_orchestrator.runs.progress import Trial


@dataclass(frozen=True)
class Picture:
    """A plot that a job drew."""

    title: str
    png: bytes


@dataclass(frozen=True)
class RunResults:
    """Plain values, all read from what the jobs wrote."""

    title: str
    figures: Sequence[tuple[str, float]]
    """Such as the test MSE before and after tuning; the last one is the model that was served."""
    predictions: Sequence[float]
    """What the endpoint said about the first test rows."""
    targets: Sequence[float]
    score_report: str
    scored: tuple[Sequence[float], Sequence[float]]
    """All test rows: targets, and what batch-score predicted."""
    places: Sequence[tuple[str, str]]
    """What lies where, as S3 addresses."""
    objective: str = ""
    trials: Sequence[Trial] = ()
    """Best first."""
    table: Sequence[str] = ()
    """Lines of a log that are a result themselves."""
    pictures: Sequence[Picture] = field(default_factory=tuple)
