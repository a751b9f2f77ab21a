"""Runs a user's training script with the ModelTrainer of the SageMaker SDK v3. The job names AWS's PyTorch image.

This program runs in the SDK's virtual environment. Usage: trainers_v3.py WHEEL
"""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from textwrap import dedent

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.s3 import S3Downloader
from sagemaker.core.shapes import MetricDefinition
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.model_trainer import ModelTrainer

from tests.clients.polling import poll_quickly

wheel = Path(sys.argv[1])
poll_quickly()
session, instance_type = Session(), "ml.m5.large"
bucket = session.default_bucket()
image = image_uris.retrieve(
    "pytorch", "us-east-1", version="2.3", py_version="py311", instance_type=instance_type, image_scope="training"
)

source = Path("source")
source.mkdir()
shutil.copy(wheel, source)
(source / "requirements.txt").write_text(f"./{wheel.name}\n")
(source / "train.py").write_text(
    dedent("""
    import argparse, os, pathlib, tiny, torch
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=float)
    factor = parser.parse_args().factor
    row = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "row.csv").read_text()
    total = torch.tensor([float(value) for value in row.split(",")]).sum().item() * factor
    pathlib.Path(os.environ["SM_MODEL_DIR"], "total.txt").write_text(str(total))
    print(f"total: {total};", flush=True)
    """)
)
session.upload_string_as_file_body("1,2,3", bucket, "trainers/data/row.csv")
trainer = ModelTrainer(
    training_image=image,
    role=os.environ["SAGEMAKER_ROLE"],
    compute=Compute(instance_type=instance_type, instance_count=1),
    source_code=SourceCode(source_dir=str(source), entry_script="train.py", requirements="requirements.txt"),
    hyperparameters={"factor": 2.0},
    base_job_name="trainers-v3",
).with_metric_definitions([MetricDefinition(name="total", regex="total: ([0-9.]+);")])
trainer.train([InputData(channel_name="train", data_source=f"s3://{bucket}/trainers/data")])
job = trainer._latest_training_job
job.refresh()
S3Downloader.download(job.model_artifacts.s3_model_artifacts, "model", sagemaker_session=session)
with tarfile.open("model/model.tar.gz") as archive:
    files = sorted(archive.getnames())
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps({"files": files, "total": job.final_metric_data_list[0].value}))
