"""The housing notebook, to its last cell: scale, train, tune, serve, predict, score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.workflows import steps, store
from orchestrator.workflows.kinds import PROCESSING, TUNING, Answer
from orchestrator.workflows.place import Place
from orchestrator.workflows.progress import Trial, best_first
from orchestrator.workflows.results import Results
from orchestrator.workflows.run import Run, trials

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

PICTURES = {"learning-curve.png": "Learning curve", "predicted-versus-target.png": "Predicted and target"}


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


def housing(place: Place, run: Run, options: Options, folder: Path) -> Results:
    """Run the workflow; what was read from its results lies in `folder`."""
    raw = make_raw_data(place, run, options)
    train_data, test_data = scale(place, run, options, raw)

    channels = [steps.channel("train", train_data), steps.channel("test", test_data)]
    models = {"trained": read_model(place, train(place, run, options, channels))}
    tried: list[Trial] = []
    if options.tuning:
        tuning = tune(place, run, options, channels)
        tried = trials(place, tuning["HyperParameterTuningJobName"])
        winner = tuning["BestTrainingJob"]["TrainingJobName"]
        models["tuned"] = read_model(place, place.sagemaker.describe_training_job(TrainingJobName=winner))
    best = min(models.values(), key=lambda model: model.test_mse)

    test = store.fetch(place, test_data, folder / "test")
    x_test, y_test = store.read_arrays(test, "x"), store.read_arrays(test, "y").ravel().tolist()
    predictions = run.once(
        "predictions",
        "Predictions",
        lambda: steps.serve_and_predict(place, run, best.uri, x_test[: steps.ROWS].tolist()),
    )
    batch = steps.batch_score(place, run, best.uri, test_data)
    report, predicted = steps.scores(place, batch, folder)

    return Results(
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


def make_raw_data(place: Place, run: Run, options: Options) -> str:
    """The raw arrays, each in a file a host."""
    shards = ["--shards", str(options.instance_count)]
    if options.data is None:
        return steps.raw_data(place, run, ["diabetes", *shards], [])
    source = f"{run.id}/source/data.npz"
    place.s3.upload_file(options.data, place.bucket, source)
    file = {
        "InputName": "source",
        "S3Input": {
            "S3Uri": f"s3://{place.bucket}/{source}",
            "LocalPath": steps.local_path("input"),
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }
    return steps.raw_data(place, run, ["boston", "--from", "data.npz", *shards], [file])


def scale(place: Place, run: Run, options: Options, raw: str) -> tuple[str, str]:
    """Standard scaling on several hosts, each with its share of the files; where training and test data lie."""
    outputs = {name: f"s3://{place.bucket}/{run.id}/{name}" for name in ("train", "test")}
    run.job(
        "scale",
        f"Scaling on {options.instance_count} hosts" if options.instance_count > 1 else "Scaling",
        PROCESSING,
        {
            "ProcessingJobName": run.name("scale"),
            "RoleArn": place.role,
            "AppSpecification": {"ImageUri": place.image("preprocess")},
            "ProcessingInputs": [
                {
                    "InputName": "input",
                    "S3Input": {
                        "S3Uri": f"{raw}/",
                        "LocalPath": steps.local_path("input"),
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                        "S3DataDistributionType": "ShardedByS3Key",
                    },
                }
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": name,
                        "S3Output": {"S3Uri": uri, "LocalPath": steps.local_path(name), "S3UploadMode": "EndOfJob"},
                    }
                    for name, uri in outputs.items()
                ]
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceCount": options.instance_count,
                    "InstanceType": place.instance_type,
                    "VolumeSizeInGB": 30,
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": steps.DAY},
        },
    )
    return outputs["train"], outputs["test"]


def train(place: Place, run: Run, options: Options, channels: Sequence[dict[str, Any]]) -> Answer:
    """Hosted training, with the notebook's hyperparameters; the training job's description."""
    hyperparameters = {
        "epochs": str(options.epochs),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
    }
    return steps.train(place, run, options.trainer, hyperparameters, channels, METRICS[options.framework])


def tune(place: Place, run: Run, options: Options, channels: Sequence[dict[str, Any]]) -> Answer:
    """Search for better hyperparameters, three training jobs at a time; the tuning job's description."""
    return run.job(
        "tune",
        "Tuning",
        TUNING,
        {
            "HyperParameterTuningJobName": run.name("tune"),
            "HyperParameterTuningJobConfig": {
                "Strategy": "Bayesian",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3},
                "ParameterRanges": {
                    "ContinuousParameterRanges": [
                        {
                            "Name": "learning_rate",
                            "MinValue": "0.001",
                            "MaxValue": "0.2",
                            "ScalingType": "Logarithmic",
                        }
                    ],
                    "IntegerParameterRanges": [
                        {"Name": "epochs", "MinValue": "10", "MaxValue": "50"},
                        {"Name": "batch_size", "MinValue": "64", "MaxValue": "256"},
                    ],
                },
                "TrainingJobEarlyStoppingType": "Off",
            },
            "TrainingJobDefinition": {
                "RoleArn": place.role,
                "AlgorithmSpecification": {
                    "TrainingImage": place.image(options.trainer),
                    "TrainingInputMode": "File",
                    "MetricDefinitions": METRICS[options.framework],
                },
                "InputDataConfig": channels,
                "OutputDataConfig": {"S3OutputPath": f"s3://{place.bucket}/{run.id}/models"},
                "ResourceConfig": {"InstanceCount": 1, "InstanceType": place.instance_type, "VolumeSizeInGB": 30},
                "StoppingCondition": {"MaxRuntimeInSeconds": steps.DAY},
            },
        },
    )


def read_model(place: Place, training: Answer) -> Model:
    """A training job's model, from its description."""
    uri = training["ModelArtifacts"]["S3ModelArtifacts"]
    output = store.read_output(place, uri)
    return Model(uri, store.read_metrics(output)["test_mse"], output)
