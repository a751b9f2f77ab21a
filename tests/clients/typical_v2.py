"""Typical program for the SageMaker SDK v2: train, attach, tune, process, transform, deploy, predict, delete.

Runs in the SDK's virtual environment, with versions from 2.90 on. Usage: typical_v2.py TRAIN-IMAGE SERVE-IMAGE BUCKET
"""

import json
import os
import sys

import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.estimator import Estimator
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput, Processor
from sagemaker.serializers import CSVSerializer
from sagemaker.transformer import Transformer
from sagemaker.tuner import HyperparameterTuner, IntegerParameter

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

train_image, serve_image, bucket = sys.argv[1:]
poll_quickly()
# For the name of the default bucket, versions before 2.148 would request the account from AWS's STS.
sess = sagemaker.Session(default_bucket=bucket)
role = os.environ["SAGEMAKER_ROLE"]
instance_type = "ml.m5.large"
metrics = [{"Name": "loss", "Regex": "loss: ([0-9.]+)"}]
results: dict[str, object] = {"version": sagemaker.__version__}

# --- training, and attaching to the job
estimator = Estimator(
    train_image, role, 1, instance_type, sagemaker_session=sess, hyperparameters={"a": 1}, metric_definitions=metrics
)
estimator.fit({"model": f"s3://{bucket}/bundle"})
attached_estimator = Estimator.attach(estimator.latest_training_job.name, sagemaker_session=sess)
results["attached"] = attached_estimator.model_data == estimator.model_data
description = attached_estimator.latest_training_job.describe()
results["loss"] = description["FinalMetricDataList"][0]["Value"]

# --- tuning, and attaching to the job
tuner = HyperparameterTuner(
    estimator,
    "loss",
    {"n": IntegerParameter(1, 9)},
    metrics,
    max_jobs=2,
    max_parallel_jobs=2,
    objective_type="Minimize",
    # The default consists of the image's name and the minute, so it is not unique.
    base_tuning_job_name="v" + sagemaker.__version__.replace(".", "-"),
)
tuner.fit({"model": f"s3://{bucket}/bundle"})
attached_tuner = HyperparameterTuner.attach(tuner.latest_tuning_job.name, sagemaker_session=sess)
results["tuned"] = [
    attached_tuner.objective_metric_name,
    attached_tuner.best_training_job() == tuner.best_training_job(),
]
results["trials"] = len(attached_tuner.analytics().dataframe())

# --- an endpoint
predictor = estimator.deploy(
    1,
    instance_type,
    image_uri=serve_image,
    serializer=CSVSerializer(),
    deserializer=CSVDeserializer(),
    endpoint_name="typical-v2",
)
results["predicted"] = predictor.predict([[1, 2, 3]])
predictor.delete_endpoint()

# --- a model from an archive, and a transform job
model = Model(serve_image, estimator.model_data, role, sagemaker_session=sess, predictor_cls=Predictor)
sess.upload_string_as_file_body("1,2,3\n4,5,6\n", bucket, "typical-v2/rows.csv")
transformer = model.transformer(1, instance_type, output_path=f"s3://{bucket}/typical-v2/out", accept="text/csv")
transformer.transform(f"s3://{bucket}/typical-v2/rows.csv", content_type="text/csv", split_type="Line")
transformer.wait()
Transformer.attach(transformer.latest_transform_job.name, sagemaker_session=sess)
results["transformed"] = sess.read_s3_file(bucket, "typical-v2/out/rows.csv.out")

# --- processing
source, target = (str(Layout().processing(name)) for name in ("in", "out"))
copy_command = ["/bin/sh", "-c", f"cp {source}/* {target}"]
processor = Processor(role, serve_image, 1, instance_type, entrypoint=copy_command, sagemaker_session=sess)
processor.run(
    inputs=[ProcessingInput(f"s3://{bucket}/typical-v2/rows.csv", source)],
    outputs=[ProcessingOutput(target, f"s3://{bucket}/typical-v2/copy", output_name="copy")],
)
results["processed"] = sess.list_s3_files(bucket, "typical-v2/copy")
print(json.dumps(results))
