"""The steps of the notebook on which this project is based: scale on four hosts, train, tune, serve, predict, score."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from microjobs.hyperparameters import parameter
from microjobs_orchestrator.failures import UsageError
from microjobs_orchestrator.report.blocks import (
    BatchScoreReport,
    Figure,
    Figures,
    Metrics,
    Picture,
    PredictionPlot,
    Predictions,
    TrialPlot,
    Trials,
)
from microjobs_orchestrator.runs import outputs, steps
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.expressions import format_expression
from microjobs_orchestrator.runs.kinds import TUNING, Members
from microjobs_orchestrator.runs.pipelines import Choice, PipelineItem
from microjobs_orchestrator.runs.planned import PlannedRequest, RunContext
from microjobs_orchestrator.runs.run import Run
from microjobs_orchestrator.runs.trials import Trial, list_trials, sort_trials
from microjobs_orchestrator.runs.workflow import Block, Location, RunResults, Workflow, file_option

EXAMPLES = """microjobs run housing
microjobs run housing --data boston_housing.npz --framework pytorch
microjobs run housing --no-tuning --instance-count 1
microjobs run housing --resume
microjobs run housing --on aws --dry-run
microjobs run housing --on aws --instance-type train=ml.c5.xlarge --spot"""

OBJECTIVE = "val_loss"
METRIC_DEFINITIONS = {
    "tensorflow": [
        {"Name": "loss", "Regex": r" loss: ([0-9\.]+)"},
        {"Name": OBJECTIVE, "Regex": r" val_loss: ([0-9\.]+)"},
    ],
    "pytorch": [
        {"Name": "loss", "Regex": r"Train loss: ([0-9\.]+)"},
        {"Name": OBJECTIVE, "Regex": r"Test loss: ([0-9\.]+)"},
    ],
}
"""MetricDefinitions for each trainer's log. The definitions for TensorFlow are from the notebook."""

LEARNING_CURVE = "learning-curve.png"

DATA_PATH = "source/data.npz"
"""Path of the user's data below the run's folder."""


@dataclass(frozen=True)
class Options:
    """Options of the workflow, with the notebook's defaults."""

    framework: str = parameter("tensorflow", "framework of the trainer", choices=tuple(METRIC_DEFINITIONS))
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
    """A trained model: the S3 URI of its archive, its errors on the test data, and the files of its job's output."""

    uri: str
    objective: float
    """The final value of the metric `OBJECTIVE`."""
    test_mse: float
    output: dict[str, bytes]


def run_housing(run: Run, options: Options, folder: Path) -> RunResults:
    """Run the workflow."""
    run.run_job(plan_raw_data(run, options))
    run.run_job(plan_scaling(run, options))
    models = {"trained": read_model(run.backend, run.run_job(plan_training(run, options)))}
    trials: list[Trial] = []
    if options.tuning:
        tuning = run.run_job(plan_tuning(run, options))
        trials = sort_trials(list_trials(run.backend, tuning["HyperParameterTuningJobName"]))
        best = tuning["BestTrainingJob"]["TrainingJobName"]
        models["tuned"] = read_model(run.backend, run.backend.sagemaker.describe_training_job(TrainingJobName=best))
    return apply_best_model(run, options, folder, models, trials)


def apply_best_model(
    run: Run, options: Options, folder: Path, models: Mapping[str, Model], trials: list[Trial]
) -> RunResults:
    """Serve the best model, score the test data with it, and return the results."""
    best = min(models.values(), key=lambda model: model.objective)
    test_folder = outputs.download(run.backend, run.uri("test"), folder / "test")
    x_test, y_test = (
        outputs.read_test_arrays(test_folder, "x"),
        outputs.read_test_arrays(test_folder, "y").ravel().tolist(),
    )
    predictions = steps.serve_and_predict(run, best.uri, x_test[: steps.ENDPOINT_ROWS].tolist())
    report, batch_predictions = steps.score_test_data(run, best.uri, run.uri("test"), folder)
    blocks: list[Block] = [
        Metrics([(f"Test MSE, {name}", model.test_mse) for name, model in models.items()]),
        make_figures(best, PredictionPlot(y_test, batch_predictions), trials),
        *([Trials(trials, OBJECTIVE)] if trials else []),
        Predictions(predictions, y_test[: steps.ENDPOINT_ROWS]),
        BatchScoreReport(report),
    ]
    locations = [
        Location("data", run.uri("train")),
        Location("model", best.uri, in_summary=True),
        Location("scores", run.uri("batch")),
    ]
    return RunResults(f"housing, {options.framework}", blocks, locations)


def make_figures(best: Model, prediction_plot: PredictionPlot, trials: list[Trial]) -> Figures:
    trial_plots: list[Figure] = [TrialPlot(trials, "learning_rate", OBJECTIVE)] if trials else []
    pictures = [Picture("Learning curve", best.output[LEARNING_CURVE])] if LEARNING_CURVE in best.output else []
    return Figures([prediction_plot, *trial_plots, *pictures])


def read_model(backend: Backend, training: Members) -> Model:
    """Return the model of the training job with this description."""
    uri = training["ModelArtifacts"]["S3ModelArtifacts"]
    output = outputs.read_training_output(backend, uri)
    final_values = {item["MetricName"]: item["Value"] for item in training["FinalMetricDataList"]}
    return Model(uri, final_values[OBJECTIVE], outputs.read_metrics(output)["test_mse"], output)


# --- requests ---


def plan_requests(context: RunContext, options: Options) -> list[PlannedRequest]:
    """Return all requests. They use the first training job's model, because the best model is not known yet."""
    return [
        plan_raw_data(context, options),
        plan_scaling(context, options),
        plan_training(context, options),
        *([plan_tuning(context, options)] if options.tuning else []),
        *plan_model_use(context, steps.derive_model_uri(context)),
    ]


def plan_pipeline(context: RunContext, options: Options) -> list[PipelineItem]:
    """Return the requests of the pipeline, which uses the best model."""
    jobs = [plan_raw_data(context, options), plan_scaling(context, options), plan_training(context, options)]
    trained = plan_model_use(context, steps.derive_model_uri(context))
    if not options.tuning:
        return [*jobs, *trained]
    best = format_expression("Steps.tune.BestTrainingJob.TrainingJobName")
    tuned = plan_model_use(context, context.uri(f"models/{best}/output/model.tar.gz"))
    choice = Choice(
        "choose",
        left=format_expression(f"Steps.train.FinalMetricDataList['{OBJECTIVE}'].Value"),
        right=format_expression("Steps.tune.BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value"),
        branches={"trained": trained, "tuned": tuned},
    )
    return [*jobs, plan_tuning(context, options), choice]


def plan_model_use(context: RunContext, model_uri: str) -> list[PlannedRequest]:
    """Return the requests that use a model: those of the endpoint, and of the job that scores the test data."""
    return [*steps.plan_endpoint(context, model_uri), steps.plan_scoring(context, model_uri, context.uri("test"))]


def plan_uploads(context: RunContext, options: Options) -> dict[str, str]:
    """Return the S3 URI of the user's data, by its local path; empty without such data."""
    return {options.data: context.uri(DATA_PATH)} if options.data else {}


def plan_raw_data(context: RunContext, options: Options) -> PlannedRequest:
    """Return the request for the raw arrays, one shard per host of the scaling job."""
    shards = ["--shards", str(options.instance_count)]
    if not options.data:
        return steps.plan_raw_data(context, ["diabetes", *shards])
    file = {**steps.make_s3_input("input", context.uri(DATA_PATH)), "InputName": "source"}
    return steps.plan_raw_data(context, ["boston", "--from", "data.npz", *shards], [file])


def plan_scaling(context: RunContext, options: Options) -> PlannedRequest:
    """Return the request for standard scaling. Each host receives its share of the files."""
    count = options.instance_count
    return steps.plan_processing(
        context,
        "scale",
        f"Scaling on {count} hosts" if count > 1 else "Scaling",
        application={"ImageUri": context.backend.find_image_uri("preprocess")},
        inputs=[steps.make_s3_input("input", f"{context.uri('raw')}/", S3DataDistributionType="ShardedByS3Key")],
        folders_by_output={"train": "train", "test": "test"},
        instance_count=count,
    )


def make_channels(context: RunContext) -> list[Members]:
    return [steps.make_channel(name, context.uri(name)) for name in ("train", "test")]


def plan_training(context: RunContext, options: Options) -> PlannedRequest:
    """Return the request for training with the options' hyperparameters."""
    hyperparameters = {
        "epochs": str(options.epochs),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
    }
    return steps.plan_training(
        context, options.trainer, hyperparameters, make_channels(context), METRIC_DEFINITIONS[options.framework]
    )


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


def plan_tuning(context: RunContext, options: Options) -> PlannedRequest:
    """Return the request of the tuning job."""
    request = {
        "HyperParameterTuningJobName": context.name("tune"),
        "HyperParameterTuningJobConfig": TUNING_CONFIG,
        "TrainingJobDefinition": steps.make_training_definition(
            context, "tune", options.trainer, make_channels(context), METRIC_DEFINITIONS[options.framework]
        ),
    }
    return PlannedRequest("tune", "Tuning", TUNING, request)


def check_data(options: Options) -> None:
    """Raise UsageError if the user's file does not exist, or does not have arrays x and y."""
    if not options.data:
        return
    try:
        names = zipfile.ZipFile(options.data).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"--data {options.data}: {reason}: choose an .npz file with arrays x and y") from error
    if not {"x.npy", "y.npy"} <= set(names):
        raise UsageError(f"--data {options.data} contains {', '.join(names) or 'no arrays'}: add arrays x and y")


WORKFLOW = Workflow(
    Options,
    run_housing,
    plan_requests,
    plan_uploads=plan_uploads,
    check_options=check_data,
    plan_pipeline=plan_pipeline,
    parameters=("epochs", "batch_size", "learning_rate"),
    examples=EXAMPLES,
)
