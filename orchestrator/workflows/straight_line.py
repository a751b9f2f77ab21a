"""The PyTorch notebook: y = 0.3 x + 0.9, learned as one weight and one bias."""

from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.runs import steps, store
from microjobs_orchestrator.runs.backend import Backend, RequestContext
from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, Members
from microjobs_orchestrator.runs.logs import LogTail
from microjobs_orchestrator.runs.plan import Namer, PlannedRequest
from microjobs_orchestrator.runs.results import RunResults
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


def straight_line(backend: Backend, run: Run, options: Options, folder: Path) -> RunResults:
    """Run the workflow; what was read from its results lies in `folder`."""
    run.job("raw", "Raw data", PROCESSING, raw_request(backend, run))
    job = run.job("train", "Training", TRAINING, train_request(backend, run, options))
    model = job["ModelArtifacts"]["S3ModelArtifacts"]

    # A program that did not train it has loaded the model: what it says at 0 is the bias, and the rise to 1 the weight.
    raw = steps.raw_uri(backend, run)
    test = store.fetch(backend, raw, folder / "test")
    rows = [[0.0], [1.0], *store.read_arrays(test, "x")[: steps.ROWS].tolist()]
    at_zero, at_one, *predictions = run.once(
        "predictions", "Predictions", lambda: steps.serve_and_predict(backend, run, model, rows)
    )
    run.job("batch-score", "Batch score", PROCESSING, steps.batch_score_request(backend, run, model, raw))
    batch = steps.batch_uri(backend, run)
    y_test = store.read_arrays(test, "y").ravel().tolist()
    report, predicted = steps.scores(backend, batch, folder)

    output = store.read_output(backend, model)
    return RunResults(
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
        table=epoch_table(backend, job),
        pictures=steps.pictures(output, PICTURES),
    )


def requests(context: RequestContext, names: Namer, options: Options) -> list[PlannedRequest]:
    """All requests of the workflow."""
    model, raw = steps.model_uri(context, names), steps.raw_uri(context, names)
    return [
        PlannedRequest("raw", "Raw data", "CreateProcessingJob", raw_request(context, names)),
        PlannedRequest("train", "Training", "CreateTrainingJob", train_request(context, names, options)),
        *steps.last_requests(context, names, model, raw),
    ]


def raw_request(context: RequestContext, names: Namer) -> Members:
    return steps.raw_request(context, names, ["straight-line"])


def train_request(context: RequestContext, names: Namer, options: Options) -> Members:
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
    raw = steps.raw_uri(context, names)
    channels = [steps.channel("train", raw), steps.channel("test", raw)]
    return steps.train_request(context, names, "train-pytorch", hyperparameters, channels, METRICS)


def epoch_table(backend: Backend, job: Members) -> list[str]:
    """The lines of the log that the notebook prints."""
    lines = LogTail.of(backend.logs, TRAINING, job["TrainingJobName"]).rest()
    return [line.text for line in lines if line.text.startswith("Epoch: ")]
