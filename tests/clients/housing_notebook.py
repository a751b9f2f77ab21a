"""Makes the calls of the housing notebook with the SageMaker SDK v2 and the local server.

The notebook runs scripts in AWS's images. This program runs the project's images, so the generic classes `Processor`
and `Estimator` replace `SKLearnProcessor` and `TensorFlow`. The data come from a file, and the endpoint has another
instance type.
`notebook_cells.py` has the notebook's own scripts and classes.

Runs in the SDK's virtual environment.
Usage: housing_notebook.py BOSTON.npz WORK-FOLDER IMAGE-TEMPLATE (such as microjobs/{}:dev)
"""

import json
import os
import sys
from pathlib import Path

import boto3
import numpy as np
import sagemaker
from sagemaker.analytics import HyperparameterTuningJobAnalytics
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor
from sagemaker.serializers import JSONSerializer
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner, IntegerParameter

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

poll_quickly()


def locate(name: str) -> str:
    """Return the path of an input or an output in the container."""
    return str(Layout().processing(name))


data_path, work_folder, image_template = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

sess = sagemaker.session.Session()
bucket = sess.default_bucket()
role = os.environ["SAGEMAKER_ROLE"]
prefix = "tf-2-workflow"

# --- raw data, with the split of Keras
with np.load(data_path) as file:
    x, y = file["x"], file["y"]
order = np.arange(len(x))
np.random.RandomState(113).shuffle(order)
train_rows = int(len(x) * 0.8)
raw = work_folder / "raw"
raw.mkdir()
arrays = {
    "x_train": x[order[:train_rows]],
    "y_train": y[order[:train_rows]],
    "x_test": x[order[train_rows:]],
    "y_test": y[order[train_rows:]],
}
for name, array in arrays.items():
    np.save(raw / f"{name}.npy", array)
raw_s3 = sess.upload_data(path=str(raw), key_prefix=f"{prefix}/data/raw")

# --- scaling on four hosts, with one file per host
destination = f"s3://{bucket}/{prefix}/data"
processor = Processor(role, image_template.format("preprocess"), instance_count=4, instance_type="ml.m5.4xlarge")
processor.run(
    inputs=[ProcessingInput(source=raw_s3, destination=locate("input"), s3_data_distribution_type="ShardedByS3Key")],
    outputs=[
        ProcessingOutput(output_name="train", destination=f"{destination}/train", source=locate("train")),
        ProcessingOutput(output_name="test", destination=f"{destination}/test", source=locate("test")),
    ],
    logs=False,
)
sagemaker.s3.S3Downloader.download(f"{destination}/test/x_test.npy", str(work_folder))
x_test = np.load(work_folder / "x_test.npy")
assert abs(x_test.mean()) < 0.2

# --- hosted training, with its log
inputs = {"train": f"{destination}/train", "test": TrainingInput(f"{destination}/test")}
metric_definitions = [
    {"Name": "loss", "Regex": " loss: ([0-9\\.]+)"},
    {"Name": "val_loss", "Regex": " val_loss: ([0-9\\.]+)"},
]
estimator = Estimator(
    image_template.format("train-tensorflow"),
    role,
    instance_count=1,
    instance_type="ml.t3.medium",
    hyperparameters={"epochs": 70, "batch_size": 128, "learning_rate": 0.01},
    base_job_name=prefix,
    metric_definitions=metric_definitions,
)
estimator.fit(inputs, logs="All")
metrics = {
    item["MetricName"]: item["Value"] for item in estimator.latest_training_job.describe()["FinalMetricDataList"]
}
sagemaker.s3.S3Downloader.download(estimator.model_data, str(work_folder / "model"))
assert (work_folder / "model" / "model.tar.gz").stat().st_size > 10_000

# --- automatic tuning
tuner = HyperparameterTuner(
    estimator,
    "val_loss",
    {
        "learning_rate": ContinuousParameter(0.001, 0.2, scaling_type="Logarithmic"),
        "epochs": IntegerParameter(10, 50),
        "batch_size": IntegerParameter(64, 256),
    },
    metric_definitions,
    max_jobs=6,
    max_parallel_jobs=3,
    objective_type="Minimize",
)
tuner.fit(inputs, wait=False)
tuner.wait()
analytics = HyperparameterTuningJobAnalytics(tuner.latest_tuning_job.name)
frame = analytics.dataframe().sort_values(["FinalObjectiveValue"], ascending=True)
assert len(frame) == 6
assert set(frame["TrainingJobStatus"]) == {"Completed"}
assert frame["TrainingElapsedTimeSeconds"].sum() > 0
assert frame.iloc[0]["TrainingJobName"] == tuner.best_training_job()

# --- an endpoint for the best model
predictor = tuner.deploy(
    initial_instance_count=1,
    instance_type="ml.t2.medium",  # endpoints do not support ml.t3.medium, which the notebook uses
    image_uri=image_template.format("serve"),
    serializer=JSONSerializer(),
    deserializer=JSONDeserializer(),
)
results = predictor.predict({"instances": x_test[:10].tolist()})["predictions"]
predictions = [round(item, 1) for row in results for item in row]
targets = np.load(raw / "y_test.npy")[:10].round(1).tolist()
sess.delete_endpoint(predictor.endpoint_name)

# --- batch scoring
scorer = Processor(role, image_template.format("batch-score"), 1, "ml.c5.xlarge", base_job_name=f"{prefix}-batch")
scorer.run(
    inputs=[
        ProcessingInput(source=tuner.best_estimator().model_data, destination=locate("model")),
        ProcessingInput(source=processor.latest_job.outputs[1].destination, destination=locate("test")),
    ],
    outputs=[ProcessingOutput(output_name="batch", source=locate("batch"))],
    logs=False,
)
report = f"{scorer.latest_job.outputs[0].destination}/score-report.txt"
sagemaker.s3.S3Downloader.download(report, str(work_folder))

endpoints = boto3.client("sagemaker").list_endpoints()["Endpoints"]
best_value = float(frame.iloc[0]["FinalObjectiveValue"])
print(
    json.dumps(
        {
            "before": metrics["val_loss"],
            "best": best_value,
            "predictions": predictions,
            "targets": targets,
            "report": (work_folder / "score-report.txt").read_text(),
            "endpoints": [item["EndpointStatus"] for item in endpoints],
        }
    )
)
