"""The housing notebook, to its last cell: scale, train, tune, serve, predict, score."""

from dataclasses import dataclass
from pathlib import Path

from microjobs_orchestrator.runs import steps, store
from microjobs_orchestrator.runs.backend import Backend, RequestContext
from microjobs_orchestrator.runs.kinds import PROCESSING, TRAINING, TUNING, Members
from microjobs_orchestrator.runs.plan import Namer, PlannedRequest
from microjobs_orchestrator.runs.progress import Trial, best_first
from microjobs_orchestrator.runs.results import RunResults
from microjobs_orchestrator.runs.run import Run, trials

METRICS = {
    "tensorflow": [
        {"Name": "loss", "Regex": r" loss: ([0-9\.]+)"},
        {"Name": "val_loss", "Regex": r" val_loss: ([0-9\.]+)"},
    ],
    "pytorch": [
        {"Name": "loss", "Regex": r"Train loss: ([0-9\.]+)"},
        {"Name": "val_loss", "Regex": r"Test loss: ([0-9\.]+)"},
    ],
}
"""How the metrics are found in each trainer's log; TensorFlow's as in the notebook."""

PICTURES = {"learning-curve.png": "Learning curve"}
"""The report plots predictions and targets itself."""


@dataclass(frozen=True)
class Options:
    """What may be chosen; the defaults are the notebook's."""

    framework: str = "tensorflow"
    data: str | None = None
    """A file with arrays x and y, such as Keras's boston_housing.npz; else scikit-learn's diabetes data."""
    instance_count: int = 4
    """Hosts of the scaling job. The raw data is cut into as many files an array."""
    tuning: bool = True
    epochs: int = 70
    batch_size: int = 128
    learning_rate: float = 0.01

    @property
    def trainer(self) -> str:
        return f"train-{self.framework}"

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of this repository that it runs."""
        return ("preprocess", self.trainer, "serve", "batch-score")


@dataclass(frozen=True)
class Model:
    """A trained model: its archive, its error on the test data, and what its job wrote."""

    uri: str
    test_mse: float
    output: dict[str, bytes]


def housing(backend: Backend, run: Run, options: Options, folder: Path) -> RunResults:
    """Run the workflow; what was read from its results lies in `folder`."""
    if options.data is not None:
        backend.s3.upload_file(options.data, *store.split(source_uri(backend, run)))
    run.job("raw", "Raw data", PROCESSING, raw_request(backend, run, options))
    run.job("scale", scale_title(options), PROCESSING, scale_request(backend, run, options))
    models = {
        "trained": read_model(backend, run.job("train", "Training", TRAINING, train_request(backend, run, options)))
    }
    tried: list[Trial] = []
    if options.tuning:
        tuning = run.job("tune", "Tuning", TUNING, tune_request(backend, run, options))
        tried = trials(backend, tuning["HyperParameterTuningJobName"])
        winner = tuning["BestTrainingJob"]["TrainingJobName"]
        models["tuned"] = read_model(backend, backend.sagemaker.describe_training_job(TrainingJobName=winner))
    best = min(models.values(), key=lambda model: model.test_mse)

    train_data, test_data = scaled(backend, run)
    test = store.fetch(backend, test_data, folder / "test")
    x_test, y_test = store.read_arrays(test, "x"), store.read_arrays(test, "y").ravel().tolist()
    predictions = run.once(
        "predictions",
        "Predictions",
        lambda: steps.serve_and_predict(backend, run, best.uri, x_test[: steps.ROWS].tolist()),
    )
    run.job("batch-score", "Batch score", PROCESSING, steps.batch_score_request(backend, run, best.uri, test_data))
    batch = steps.batch_uri(backend, run)
    report, predicted = steps.scores(backend, batch, folder)

    return RunResults(
        title=f"housing, {options.framework}",
        figures=[(f"Test MSE, {name}", model.test_mse) for name, model in models.items()],
        predictions=predictions,
        targets=y_test[: steps.ROWS],
        score_report=report,
        scored=(y_test, predicted),
        places=[("data", train_data), ("model", best.uri), ("scores", batch)],
        objective="val_loss" if options.tuning else "",
        trials=best_first(tried),
        pictures=steps.pictures(best.output, PICTURES),
    )


def requests(context: RequestContext, names: Namer, options: Options) -> list[PlannedRequest]:
    """All requests of the workflow. The model of the first training stands for the best one, which nobody knows yet."""
    tuning = [PlannedRequest("tune", "Tuning", "CreateHyperParameterTuningJob", tune_request(context, names, options))]
    return [
        PlannedRequest("raw", "Raw data", "CreateProcessingJob", raw_request(context, names, options)),
        PlannedRequest("scale", scale_title(options), "CreateProcessingJob", scale_request(context, names, options)),
        PlannedRequest("train", "Training", "CreateTrainingJob", train_request(context, names, options)),
        *(tuning if options.tuning else []),
        *steps.last_requests(context, names, steps.model_uri(context, names), scaled(context, names)[1]),
    ]


# --- a request a step ---


def source_uri(context: RequestContext, names: Namer) -> str:
    """Where the file of `--data` is put."""
    return context.uri(f"{names.id}/source/data.npz")


def raw_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """The raw arrays, each in a file a host."""
    shards = ["--shards", str(options.instance_count)]
    if options.data is None:
        return steps.raw_request(context, names, ["diabetes", *shards])
    file = {**steps.s3_input("input", source_uri(context, names)), "InputName": "source"}
    return steps.raw_request(context, names, ["boston", "--from", "data.npz", *shards], [file])


def scale_title(options: Options) -> str:
    return f"Scaling on {options.instance_count} hosts" if options.instance_count > 1 else "Scaling"


def scaled(context: RequestContext, names: Namer) -> tuple[str, str]:
    """Where scaled training and test data lie."""
    return context.uri(f"{names.id}/train"), context.uri(f"{names.id}/test")


def scale_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Standard scaling on several hosts, each with its share of the files."""
    train_data, test_data = scaled(context, names)
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
    return [steps.channel(name, uri) for name, uri in zip(("train", "test"), scaled(context, names), strict=True)]


def train_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Hosted training, with the notebook's hyperparameters."""
    hyperparameters = {
        "epochs": str(options.epochs),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
    }
    data = channels(context, names)
    return steps.train_request(context, names, options.trainer, hyperparameters, data, METRICS[options.framework])


def tune_request(context: RequestContext, names: Namer, options: Options) -> Members:
    """Search for better hyperparameters, three training jobs at a time."""
    return {
        "HyperParameterTuningJobName": names.name("tune"),
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"},
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
        },
        "TrainingJobDefinition": steps.training_definition(
            context, names, "tune", options.trainer, channels(context, names), METRICS[options.framework]
        ),
    }


# --- a result ---


def read_model(backend: Backend, training: Members) -> Model:
    """A training job's model, from its description."""
    uri = training["ModelArtifacts"]["S3ModelArtifacts"]
    output = store.read_output(backend, uri)
    return Model(uri, store.read_metrics(output)["test_mse"], output)
