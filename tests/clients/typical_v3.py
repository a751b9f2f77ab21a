"""Typical program for the SageMaker SDK v3: train, tune, process, transform, build and deploy a model, invoke.

Runs in the SDK's virtual environment. Usage: typical_v3.py TRAIN-IMAGE SERVE-IMAGE BUCKET
"""

import json
import os
import sys
from pathlib import Path

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import IntegerParameter
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.transformer import Transformer
from sagemaker.serve import ModelBuilder
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.model_trainer import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

train_image, serve_image, bucket = sys.argv[1:]
poll_quickly()
sess = Session()
role = os.environ["SAGEMAKER_ROLE"]
instance_type = "ml.m5.large"
compute = Compute(instance_type=instance_type, instance_count=1)
channels = [InputData(channel_name="model", data_source=f"s3://{bucket}/bundle")]
results: dict[str, object] = {"bucket": sess.default_bucket()}

# --- training with the image's program; the role comes from the SDK's configuration file
trainer = ModelTrainer(
    training_image=train_image, compute=compute, base_job_name="typical-v3", hyperparameters={"a": 1}
)
trainer.train(input_data_config=channels)
job = trainer._latest_training_job
results["trained"] = job.training_job_status
model_uri = job.model_artifacts.s3_model_artifacts

# --- training with a user's program
source = Path("source")
source.mkdir()
(source / "program.py").write_text("import json, os\nprint('program sees', json.loads(os.environ['SM_HPS']))\n")
script_trainer = ModelTrainer(
    training_image=train_image,
    role=role,
    compute=compute,
    source_code=SourceCode(source_dir=str(source), entry_script="program.py"),
    hyperparameters={"b": 2},
)
script_trainer.train()
results["scripted"] = script_trainer._latest_training_job.training_job_status

# --- tuning
tuner = HyperparameterTuner(
    trainer,
    "loss",
    {"n": IntegerParameter(1, 9)},
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
    max_jobs=2,
    max_parallel_jobs=2,
    objective_type="Minimize",
    base_tuning_job_name="typical-v3",  # the default consists of the image's name and the minute, so it is not unique
)
tuner.tune(inputs=channels, wait=True)
results["tuned"] = bool(tuner.best_training_job())

# --- the deployment of a model
builder = ModelBuilder(image_uri=serve_image, s3_model_data_url=model_uri, role_arn=role, instance_type=instance_type)
builder.build(model_name="typical-v3")
endpoint = builder.deploy(endpoint_name="typical-v3", initial_instance_count=1)
response = endpoint.invoke(body=b"1,2,3\n", content_type="text/csv", accept="text/csv")
results["predicted"] = response.body.read().decode()
endpoint.delete()

# --- transform, and processing
sess.upload_string_as_file_body("1,2,3\n4,5,6\n", bucket, "typical-v3/rows.csv")
rows_uri = f"s3://{bucket}/typical-v3/rows.csv"
transformer = Transformer(
    model_name="typical-v3", instance_count=1, instance_type=instance_type, output_path=f"s3://{bucket}/typical-v3/out"
)
transformer.transform(rows_uri, content_type="text/csv", split_type="Line", wait=True, logs=False)
results["transformed"] = sess.read_s3_file(bucket, "typical-v3/out/rows.csv.out")
input_folder, output_folder = (str(Layout().processing(name)) for name in ("in", "out"))
processor = Processor(
    role=role,
    image_uri=serve_image,
    instance_count=1,
    instance_type=instance_type,
    entrypoint=["/bin/sh", "-c", f"cp {input_folder}/* {output_folder}"],
)
s3_input = ProcessingS3Input(s3_uri=rows_uri, local_path=input_folder, s3_data_type="S3Prefix", s3_input_mode="File")
s3_output = ProcessingS3Output(
    s3_uri=f"s3://{bucket}/typical-v3/copy", local_path=output_folder, s3_upload_mode="EndOfJob"
)
processor.run(
    inputs=[ProcessingInput(input_name="rows", s3_input=s3_input)],
    outputs=[ProcessingOutput(output_name="copy", s3_output=s3_output)],
    logs=False,
)
results["processed"] = sess.list_s3_files(bucket, "typical-v3/copy")
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
