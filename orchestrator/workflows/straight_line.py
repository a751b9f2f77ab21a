"""The workflow `straight-line`, from a PyTorch notebook: y = 0.3 x + 0.9, learned as one weight and one bias."""

from dataclasses import dataclass
from pathlib import Path

from microjobs.hyperparameters import parameter
from microjobs_orchestrator.report.blocks import (
    BatchScoreReport,
    Figures,
    Metrics,
    Picture,
    PredictionPlot,
    Predictions,
)
from microjobs_orchestrator.runs import outputs, steps
from microjobs_orchestrator.runs.kinds import TRAINING
from microjobs_orchestrator.runs.logs import ClientTail
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.runs.workflow import Block, Location, RunResults, Workflow

METRIC_DEFINITIONS = [
    {"Name": "loss", "Regex": r"Train loss: ([0-9\.]+)"},
    {"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"},
]
PICTURES = {"predictions.png": "Data and predictions", "learning-curve.png": "Learning curve"}
"""Titles of the pictures in the training job's output."""


@dataclass(frozen=True)
class Options:
    """Options of the workflow, with the notebook's defaults."""

    epochs: int = parameter(300, "epochs of the training job", minimum=1)
    learning_rate: float = parameter(0.01, "learning rate of the training job")

    @property
    def jobs(self) -> tuple[str, ...]:
        return ("preprocess", "train-pytorch", "serve", "batch-score")


def run_straight_line(run: Run, options: Options, folder: Path) -> RunResults:
    """Run the workflow.

    The weight and the bias in the results come from the endpoint, which loads the saved model. The prediction for 0 is
    the bias. The difference between the predictions for 1 and 0 is the weight.
    """
    run.run_job(plan_raw_data(run))
    training = run.run_job(plan_training(run, options))
    model, raw = training["ModelArtifacts"]["S3ModelArtifacts"], run.uri("raw")
    test_folder = outputs.download(run.backend, raw, folder / "test")
    x_test, y_test = (
        outputs.read_test_arrays(test_folder, "x"),
        outputs.read_test_arrays(test_folder, "y").ravel().tolist(),
    )
    rows = [[0.0], [1.0], *x_test[: steps.ENDPOINT_ROWS].tolist()]
    at_zero, at_one, *predictions = steps.serve_and_predict(run, model, rows)
    report, batch_predictions = steps.score_test_data(run, model, raw, folder)
    output = outputs.read_training_output(run.backend, model)
    test_loss = outputs.read_metrics(output)["test_loss"]
    pictures = [Picture(title, output[name]) for name, title in PICTURES.items() if name in output]
    # The notebook prints the lines that begin with "Epoch: ".
    log = [event.text for event in ClientTail(TRAINING, training["TrainingJobName"], run.backend.logs).read_remaining()]
    epoch_lines = [line for line in log if line.startswith("Epoch: ")]
    blocks: list[Block] = [
        Metrics([("weight", at_one - at_zero), ("bias", at_zero), ("test loss (L1)", test_loss)]),
        Figures([PredictionPlot(y_test, batch_predictions), *pictures]),
        Predictions(predictions, y_test[: steps.ENDPOINT_ROWS]),
        BatchScoreReport(report),
    ]
    locations = [
        Location("data", raw),
        Location("model", model, in_summary=True),
        Location("scores", run.uri("batch")),
    ]
    return RunResults("straight-line, pytorch", blocks, locations, epoch_lines)


def plan_requests(context: RunContext, options: Options) -> list[PlannedRequest]:
    """Return all requests."""
    model = steps.derive_model_uri(context)
    return [
        plan_raw_data(context),
        plan_training(context, options),
        *steps.plan_endpoint(context, model),
        steps.plan_scoring(context, model, context.uri("raw")),
    ]


def plan_raw_data(context: RunContext) -> PlannedRequest:
    return steps.plan_raw_data(context, ["straight-line"])


def plan_training(context: RunContext, options: Options) -> PlannedRequest:
    """Return the request for training. Both channels read the folder `raw`, because nothing is scaled."""
    hyperparameters = {
        "model": "linear",
        "loss": "l1",
        "optimizer": "sgd",
        "learning_rate": str(options.learning_rate),
        "epochs": str(options.epochs),
        "eval_every": "20",
        "seed": "42",
        # Each batch has all rows, as in the notebook's loop.
        "batch_size": "0",
    }
    channels = [steps.make_channel(name, context.uri("raw")) for name in ("train", "test")]
    return steps.plan_training(context, "train-pytorch", hyperparameters, channels, METRIC_DEFINITIONS)


WORKFLOW = Workflow(Options, run_straight_line, plan_requests, parameters=("epochs", "learning_rate"))
