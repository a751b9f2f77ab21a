"""The PyTorch notebook: y = 0.3 x + 0.9, learned as one weight and one bias."""

from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.runs import steps, store
from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, Answer
from microjobs_orchestrator.runs.logs import LogTail
from microjobs_orchestrator.runs.place import Place, Site
from microjobs_orchestrator.runs.plan import Named, Planned
from microjobs_orchestrator.runs.results import Results
from microjobs_orchestrator.runs.run import Run

METRICS = [
    {"Name": "loss", "Regex": r"Train loss: ([0-9\.]+)"},
    {"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"},
]
PICTURES = {"predictions.png": "Data and predictions", "learning-curve.png": "Learning curve"}


@dataclass(frozen=True)
class Options:
    """What may be chosen; the defaults are the notebook's."""

    epochs: int = 300
    learning_rate: float = 0.01

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of this repository that it runs."""
        return ("preprocess", "train-pytorch", "serve", "batch-score")


def straight_line(place: Place, run: Run, options: Options, folder: Path) -> Results:
    """Run the workflow; what was read from its results lies in `folder`."""
    run.job("raw", "Raw data", PROCESSING, raw_request(place, run))
    job = run.job("train", "Training", TRAINING, train_request(place, run, options))
    model = job["ModelArtifacts"]["S3ModelArtifacts"]

    # A program that did not train it has loaded the model: what it says at 0 is the bias, and the rise to 1 the weight.
    raw = steps.raw_uri(place, run)
    test = store.fetch(place, raw, folder / "test")
    rows = [[0.0], [1.0], *store.read_arrays(test, "x")[: steps.ROWS].tolist()]
    at_zero, at_one, *predictions = run.once(
        "predictions", "Predictions", lambda: steps.serve_and_predict(place, run, model, rows)
    )
    run.job("batch-score", "Batch score", PROCESSING, steps.batch_score_request(place, run, model, raw))
    batch = steps.batch_uri(place, run)
    y_test = store.read_arrays(test, "y").ravel().tolist()
    report, predicted = steps.scores(place, batch, folder)

    output = store.read_output(place, model)
    return Results(
        title="straight-line, pytorch",
        figures=[
            ("weight", at_one - at_zero),
            ("bias", at_zero),
            ("test loss (L1)", store.read_metrics(output)["test_loss"]),
        ],
        predictions=predictions,
        targets=y_test[: steps.ROWS],
        score_report=report,
        scored=(y_test, predicted),
        places=[("data", raw), ("model", model), ("scores", batch)],
        table=epoch_table(place, job),
        pictures=steps.pictures(output, PICTURES),
    )


def requests(site: Site, names: Named, options: Options) -> list[Planned]:
    """All requests of the workflow."""
    model, raw = steps.model_uri(site, names), steps.raw_uri(site, names)
    return [
        Planned("raw", "Raw data", "CreateProcessingJob", raw_request(site, names)),
        Planned("train", "Training", "CreateTrainingJob", train_request(site, names, options)),
        *steps.last_requests(site, names, model, raw),
    ]


def raw_request(site: Site, names: Named) -> Answer:
    return steps.raw_request(site, names, ["straight-line"])


def train_request(site: Site, names: Named, options: Options) -> Answer:
    """Nothing to scale: both channels are the raw folder."""
    hyperparameters = {
        "model": "linear",
        "loss": "l1",
        "optimizer": "sgd",
        "learning_rate": str(options.learning_rate),
        "epochs": str(options.epochs),
        "eval_every": "20",
        "seed": "42",
        # The full batch, as in the notebook's loop.
        "batch_size": "0",
    }
    raw = steps.raw_uri(site, names)
    channels = [steps.channel("train", raw), steps.channel("test", raw)]
    return steps.train_request(site, names, "train-pytorch", hyperparameters, channels, METRICS)


def epoch_table(place: Place, job: Answer) -> list[str]:
    """The lines of the log that the notebook prints."""
    lines = LogTail.of(place.logs, TRAINING, job["TrainingJobName"]).rest()
    return [line.text for line in lines if line.text.startswith("Epoch: ")]
