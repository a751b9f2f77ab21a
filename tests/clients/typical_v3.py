"""Typical program for the SageMaker SDK v3: train, tune, process, transform, build and deploy a model, invoke.

Runs in the SDK's virtual environment. Usage: typical_v3.py TRAIN-IMAGE SERVE-IMAGE BUCKET
"""

import json
import os
import sys
import time
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

train, serve, bucket = sys.argv[1:]
# The SDK polls every 5 to 30 seconds; these jobs take less than a second.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(float(seconds), 0.5))
sess = Session()
role = os.environ["SAGEMAKER_ROLE"]
instance_type = "ml.m5.large"
compute = Compute(instance_type=instance_type, instance_count=1)
data = [InputData(channel_name="model", data_source=f"s3://{bucket}/bundle")]
results: dict[str, object] = {"bucket": sess.default_bucket()}

# --- training with the image's program; the role comes from the SDK's configuration file
trainer = ModelTrainer(training_image=train, compute=compute, base_job_name="typical-v3", hyperparameters={"a": 1})
trainer.train(input_data_config=data)
job = trainer._latest_training_job
results["trained"] = job.training_job_status
archive = job.model_artifacts.s3_model_artifacts

# --- training with a user's program
source = Path("source")
source.mkdir()
(source / "program.py").write_text("import json, os\nprint('program sees', json.loads(os.environ['SM_HPS']))\n")
scripted = ModelTrainer(
    training_image=train,
    role=role,
    compute=compute,
    source_code=SourceCode(source_dir=str(source), entry_script="program.py"),
    hyperparameters={"b": 2},
)
scripted.train()
results["scripted"] = scripted._latest_training_job.training_job_status

# --- tuning
tuner = HyperparameterTuner(
    trainer,
    "loss",
    {"n": IntegerParameter(1, 9)},
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
    max_jobs=2,
    max_parallel_jobs=2,
    objective_type="Minimize",
    base_tuning_job_name="typical-v3",  # the default is the image's name with the minute: not unique
)
tuner.tune(inputs=data, wait=True)
results["tuned"] = bool(tuner.best_training_job())

# --- a model, deployed
builder = ModelBuilder(image_uri=serve, s3_model_data_url=archive, role_arn=role, instance_type=instance_type)
builder.build(model_name="typical-v3")
endpoint = builder.deploy(endpoint_name="typical-v3", initial_instance_count=1)
answer = endpoint.invoke(body=b"1,2,3\n", content_type="text/csv", accept="text/csv")
results["predicted"] = answer.body.read().decode()
endpoint.delete()

# --- transform, and processing
sess.upload_string_as_file_body("1,2,3\n4,5,6\n", bucket, "typical-v3/rows.csv")
rows = f"s3://{bucket}/typical-v3/rows.csv"
transformer = Transformer(
    model_name="typical-v3", instance_count=1, instance_type=instance_type, output_path=f"s3://{bucket}/typical-v3/out"
)
transformer.transform(rows, content_type="text/csv", split_type="Line", wait=True, logs=False)
results["transformed"] = sess.read_s3_file(bucket, "typical-v3/out/rows.csv.out")
inside, out = (str(Layout().processing(name)) for name in ("in", "out"))
processor = Processor(
    role=role,
    image_uri=serve,
    instance_count=1,
    instance_type=instance_type,
    entrypoint=["/bin/sh", "-c", f"cp {inside}/* {out}"],
)
s3_input = ProcessingS3Input(s3_uri=rows, local_path=inside, s3_data_type="S3Prefix", s3_input_mode="File")
s3_output = ProcessingS3Output(s3_uri=f"s3://{bucket}/typical-v3/copy", local_path=out, s3_upload_mode="EndOfJob")
processor.run(
    inputs=[ProcessingInput(input_name="rows", s3_input=s3_input)],
    outputs=[ProcessingOutput(output_name="copy", s3_output=s3_output)],
    logs=False,
)
results["processed"] = sess.list_s3_files(bucket, "typical-v3/copy")
print()  # ends the last line of the SDK's output
print(json.dumps(results))
