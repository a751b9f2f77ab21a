"""The housing notebook: scale on four hosts, train, tune, serve, predict, score."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from microjobs.hyperparameters import parameter
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.report.blocks import (
    Figure,
    Figures,
    Metrics,
    Picture,
    PredictionPlot,
    Predictions,
    Score,
    TrialPlot,
    Trials,
)
from microjobs_orchestrator.runs import outputs, steps
from microjobs_orchestrator.runs.backend import Backend, RequestContext
from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, TUNING, Members
from microjobs_orchestrator.runs.planned import Namer, PlannedRequest
from microjobs_orchestrator.runs.results import Block, Location, RunResults
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.runs.trials import Trial, list_trials, sort_trials
from microjobs_orchestrator.runs.workflow import Workflow, file_option

EXAMPLES = """microjobs run housing
microjobs run housing --data boston_housing.npz --framework pytorch
microjobs run housing --no-tuning --instance-count 1
microjobs run housing --resume
microjobs run housing --on aws --dry-run
microjobs run housing --on aws --instance-type train=ml.c5.xlarge --spot"""

OBJECTIVE = "val_loss"
METRICS = {
    "tensorflow": [
        {"Name": "loss", "Regex": r" loss: ([0-9\.]+)"},
        {"Name": OBJECTIVE, "Regex": r" val_loss: ([0-9\.]+)"},
    ],
    "pytorch": [
        {"Name": "loss", "Regex": r"Train loss: ([0-9\.]+)"},
        {"Name": OBJECTIVE, "Regex": r"Test loss: ([0-9\.]+)"},
    ],
}
"""MetricDefinitions for each trainer's log; those of TensorFlow are the notebook's."""

LEARNING_CURVE = "learning-curve.png"


@dataclass(frozen=True)
class Options:
    """Options of the workflow; the defaults are the notebook's."""

    framework: str = parameter("tensorflow", "framework of the trainer", choices=tuple(METRICS))
    data: str = file_option(
        "an .npz file with arrays x and y, such as Keras's boston_housing.npz (default: scikit-learn's diabetes data)"
    )
    instance_count: int = parameter(4, "hosts of the scaling job", minimum=1)
    tuning: bool = parameter(True, "search for better hyperparameters, and use the best model")
    epochs: int = parameter(70, "epochs of the first training job", minimum=1)
    batch_size: int = parameter(128, "batch size of the first training job")
    learning_rate: float = parameter(0.01, "learning rate of the first training job")

    @property
    def trainer(self) -> str:
        return f"train-{self.framework}"

    @property
    def jobs(self) -> tuple[str, ...]:
        return ("preprocess", self.trainer, "serve", "batch-score")


@dataclass(frozen=True)
class Model:
    """A trained model: the S3 URI of its archive, its error on the test data, and the files of its job's output."""

    uri: str
    test_mse: float
    output: dict[str, bytes]


def housing(run: Run, options: Options, folder: Path) -> RunResults:
    """Run the workflow."""
    backend = run.backend
    run.job("raw", "Raw data", PROCESSING, raw_request(backend, run, options))
    run.job("scale", scale_title(options), PROCESSING, scale_request(backend, run, options))
    training = run.job("train", "Training", TRAINING, train_request(backend, run, options))
    models = {"trained": read_model(backend, training)}
    trials: list[Trial] = []
    if options.tuning:
        tuning = run.job("tune", "Tuning", TUNING, tune_request(backend, run, options))
        trials = sort_trials(list_trials(backend, tuning["HyperParameterTuningJobName"]))
        models["tuned"] = read_best_model(backend, tuning)
    return apply_best_model(run, options, folder, models, trials)


def apply_best_model(
    run: Run, options: Options, folder: Path, models: Mapping[str, Model], trials: list[Trial]
) -> RunResults:
    """Serve the best model, score the test data with it, and return the results."""
    best = min(models.values(), key=lambda model: model.test_mse)
    train_data, test_data = scaled_uris(run.backend, run)
    test = outputs.download(run.backend, test_data, folder / "test")
    x_test, y_test = outputs.read_test_arrays(test, "x"), outputs.read_test_arrays(test, "y").ravel().tolist()
    predictions = steps.serve_and_predict(run, best.uri, x_test[: steps.ROWS].tolist())
    report, scored = steps.batch_score(run, best.uri, test_data, folder)
    blocks: list[Block] = [
        Metrics([(f"Test MSE, {name}", model.test_mse) for name, model in models.items()]),
        figures(best, PredictionPlot(y_test, scored), trials),
        *([Trials(trials, OBJECTIVE)] if trials else []),
        Predictions(predictions, y_test[: steps.ROWS]),
        Score(report),
    ]
    locations = [
        Location("data", train_data),
        Location("model", best.uri, in_summary=True),
        Location("scores", steps.batch_uri(run.backend, run)),
    ]
    return RunResults(f"housing, {options.framework}", blocks, locations)


def figures(best: Model, predictions: PredictionPlot, trials: list[Trial]) -> Figures:
    trial_plots: list[Figure] = [TrialPlot(trials, "learning_rate", OBJECTIVE)] if trials else []
    pictures = [Picture("Learning curve", best.output[LEARNING_CURVE])] if LEARNING_CURVE in best.output else []
    return Figures([predictions, *trial_plots, *pictures])


def read_model(backend: Backend, training: Members) -> Model:
    """Return the model of a training job.

    Args:
        training: the description of the job.
    """
    uri = training["ModelArtifacts"]["S3ModelArtifacts"]
    output = outputs.read_training_output(backend, uri)
    return Model(uri, outputs.read_metrics(output)["test_mse"], output)


def read_best_model(backend: Backend, tuning: Members) -> Model:
    """Return the model of a tuning job's best training job."""
    name = tuning["BestTrainingJob"]["TrainingJobName"]
    return read_model(backend, backend.sagemaker.describe_training_job(TrainingJobName=name))


# --- requests ---


def requests(context: RequestContext, names: Namer, options: Options) -> list[PlannedRequest]:
    """Return all requests. The best model is unknown before the run; they have the first training job's model."""
    tuning = [PlannedRequest("tune", "Tuning", "CreateHyperParameterTuningJob", tune_request(context, names, options))]
    return [
        PlannedRequest("raw", "Raw data", "CreateProcessingJob", raw_request(context, names, options)),
        PlannedRequest("scale", scale_title(options), "CreateProcessingJob", scale_request(context, names, options)),
        PlannedRequest("train", "Training", "CreateTrainingJob", train_request(context, names, options)),
        *(tuning if options.tuning else []),
        *steps.last_requests(context, names, steps.model_uri(context, names), scaled_uris(context, names)[1]),
    ]


def uploads(context: RequestContext, names: Namer, options: Options) -> dict[str, str]:
    """Return the S3 URI of the user's data by its path."""
    return {options.data: data_uri(context, names)} if options.data else {}


def data_uri(context: RequestContext, names: Namer) -> str:
    return context.uri(f"{names.id}/source/data.npz")


def raw_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Return the request for the raw arrays, one shard per host of the scaling job."""
    shards = ["--shards", str(options.instance_count)]
    if not options.data:
        return steps.raw_request(context, names, ["diabetes", *shards])
    file = {**steps.s3_input("input", data_uri(context, names)), "InputName": "source"}
    return steps.raw_request(context, names, ["boston", "--from", "data.npz", *shards], [file])


def scale_title(options: Options) -> str:
    return f"Scaling on {options.instance_count} hosts" if options.instance_count > 1 else "Scaling"


def scaled_uris(context: RequestContext, names: Namer) -> tuple[str, str]:
    """Return the S3 URIs of the scaled training data and test data."""
    return context.uri(f"{names.id}/train"), context.uri(f"{names.id}/test")


def scale_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Return the request for standard scaling. Each host receives its share of the files."""
    train_data, test_data = scaled_uris(context, names)
    raw = f"{steps.raw_uri(context, names)}/"
    return steps.processing_request(
        context,
        names.name("scale"),
        {"ImageUri": context.image("preprocess")},
        [steps.s3_input("input", raw, S3DataDistributionType="ShardedByS3Key")],
        {"train": ("train", train_data), "test": ("test", test_data)},
        context.instances("scale", options.instance_count),
    )


def channels(context: RequestContext, names: Namer) -> list[Members]:
    return [steps.channel(name, uri) for name, uri in zip(("train", "test"), scaled_uris(context, names), strict=True)]


def train_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Return the request for training with the options' hyperparameters."""
    hyperparameters = {
        "epochs": str(options.epochs),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
    }
    data = channels(context, names)
    return steps.train_request(context, names, options.trainer, hyperparameters, data, METRICS[options.framework])


TUNING_CONFIG = {
    "Strategy": "Bayesian",
    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": OBJECTIVE},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.2", "ScalingType": "Logarithmic"}
        ],
        "IntegerParameterRanges": [
            {"Name": "epochs", "MinValue": "10", "MaxValue": "50"},
            {"Name": "batch_size", "MinValue": "64", "MaxValue": "256"},
        ],
    },
    "TrainingJobEarlyStoppingType": "Off",
}
"""The notebook's search for better hyperparameters."""


def tune_request(context: RequestContext, names: Namer, options: Options) -> Members:
    return {
        "HyperParameterTuningJobName": names.name("tune"),
        "HyperParameterTuningJobConfig": TUNING_CONFIG,
        "TrainingJobDefinition": steps.training_definition(
            context, names, "tune", options.trainer, channels(context, names), METRICS[options.framework]
        ),
    }


def check_data(options: Options) -> None:
    """Check the user's data before the first job.

    Raises:
        UsageError: the file does not exist, or does not have arrays x and y.
    """
    if not options.data:
        return
    try:
        names = zipfile.ZipFile(options.data).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"--data {options.data}: {reason}: name an .npz file with arrays x and y") from error
    if not {"x.npy", "y.npy"} <= set(names):
        raise UsageError(f"--data {options.data} has {', '.join(names) or 'nothing'}: arrays x and y are needed")


WORKFLOW = Workflow(Options, housing, requests, uploads, check_data, EXAMPLES)
