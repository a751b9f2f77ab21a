"""Runs users' processing scripts with the processors of the SageMaker SDK v2. The jobs name AWS's framework images.

The first job follows the first job of the housing notebook, but has one host and no `ShardedByS3Key`. With this option
and four hosts, the job fails on AWS, too, because three of the hosts have no x_train.npy.

Runs in the SDK's virtual environment. Usage: processors_v2.py WHEEL
"""

import json
import os
import shutil
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import sagemaker
from sagemaker.processing import FrameworkProcessor, ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.sklearn.processing import SKLearnProcessor

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

wheel = Path(sys.argv[1])
poll_quickly()
session, role = sagemaker.Session(), os.environ["SAGEMAKER_ROLE"]
bucket, instance_type = session.default_bucket(), "ml.m5.4xlarge"
layout = Layout()
results: dict[str, object] = {}
in_folder, train_folder, out_folder = (str(layout.processing(name)) for name in ("input", "train", "out"))

# --- SKLearnProcessor
PREPROCESSING = dedent(f"""
    import glob
    import numpy as np
    import os
    from sklearn.preprocessing import StandardScaler

    if __name__=='__main__':
        input_files = glob.glob("{in_folder}/*.npy")
        print('\\nINPUT FILE LIST: \\n{{}}\\n'.format(input_files))
        scaler = StandardScaler()
        x_train = np.load(os.path.join('{in_folder}', 'x_train.npy'))
        scaler.fit(x_train)
        for file in input_files:
            raw = np.load(file)
            if 'y_' not in file:
                transformed = scaler.transform(raw)
            if 'train' in file:
                if 'y_' in file:
                    np.save(os.path.join('{train_folder}', 'y_train.npy'), raw)
                else:
                    np.save(os.path.join('{train_folder}', 'x_train.npy'), transformed)
    """)
raw = Path("raw")
raw.mkdir()
np.save(raw / "x_train.npy", np.random.default_rng(0).normal(5, 3, (100, 4)))
np.save(raw / "y_train.npy", np.arange(100.0))
Path("preprocessing.py").write_text(PREPROCESSING)
raw_s3 = session.upload_data(path="./raw/", key_prefix="tf-2-workflow/data/raw")
processor = SKLearnProcessor(framework_version="0.23-1", role=role, instance_type=instance_type, instance_count=1)
processor.run(
    code="preprocessing.py",
    inputs=[ProcessingInput(source=raw_s3, destination=in_folder)],
    outputs=[ProcessingOutput(output_name="train", destination=f"s3://{bucket}/scaled", source=train_folder)],
)
sagemaker.s3.S3Downloader.download(f"s3://{bucket}/scaled", "scaled")
scaled = np.load("scaled/x_train.npy")
results["sklearn"] = [round(abs(float(scaled.mean())), 6), round(float(scaled.std()), 6)]

# --- ScriptProcessor: pandas and Parquet, with arguments
Path("to_parquet.py").write_text(
    dedent("""
    import argparse
    import pandas as pd

    parser = argparse.ArgumentParser()
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--factor", type=float)
    options = parser.parse_args()
    frame = pd.DataFrame({"a": [1.0, 2.0]}) * options.factor
    frame.to_parquet(f"{options.target}/frame.parquet")
    print("rows", len(pd.read_parquet(f"{options.target}/frame.parquet")))
    """)
)
image = sagemaker.image_uris.retrieve("sklearn", "eu-west-1", version="1.2-1", instance_type=instance_type)
script_processor = ScriptProcessor(
    image_uri=image, command=["python3", "-u"], role=role, instance_count=1, instance_type=instance_type
)
script_processor.run(
    code="to_parquet.py",
    outputs=[ProcessingOutput(output_name="out", destination=f"s3://{bucket}/parquet", source=out_folder)],
    arguments=["--target", out_folder, "--factor", "2.5"],
)
results["parquet"] = session.list_s3_files(bucket, "parquet")

# --- FrameworkProcessor: a Python script in a folder with modules and requirements
source = Path("source")
source.mkdir()
shutil.copy(wheel, source)
(source / "requirements.txt").write_text(f"./{wheel.name}\n")
(source / "helper.py").write_text("def name(): return 'helper'\n")
(source / "job.py").write_text(
    dedent(f"""
    import sys
    import helper
    import tiny
    open("{out_folder}/result.txt", "w").write(f"{{helper.name()}} {{tiny.value}} {{sys.argv[1:]}}")
    """)
)
framework_processor = FrameworkProcessor(SKLearn, "1.2-1", role=role, instance_count=1, instance_type=instance_type)
framework_processor.run(
    code="job.py",
    source_dir="source",
    outputs=[ProcessingOutput(output_name="out", destination=f"s3://{bucket}/framework", source=out_folder)],
    arguments=["--x", "a b"],
)
results["framework"] = session.read_s3_file(bucket, "framework/result.txt")

# --- FrameworkProcessor: a shell script
(source / "job.sh").write_text(f"set -e\nls > {out_folder}/names.txt\n")
shell_processor = FrameworkProcessor(
    SKLearn, "1.2-1", role=role, instance_count=1, instance_type=instance_type, command=["bash"]
)
shell_processor.run(
    code="job.sh",
    source_dir="source",
    outputs=[ProcessingOutput(output_name="out", destination=f"s3://{bucket}/shell", source=out_folder)],
)
results["shell"] = "helper.py" in session.read_s3_file(bucket, "shell/names.txt").split()

# --- FrameworkProcessor: tasks on a Dask cluster of two hosts import the modules and the requirements
(source / "tasks.py").write_text(
    dedent(f"""
    from dask.distributed import Client
    import helper

    def describe(number):
        import tiny
        return f"{{helper.name()}} {{number * tiny.value}}"

    if __name__ == "__main__":
        client = Client()
        hosts = {{name.split("/")[0] for name in client.run(lambda dask_worker: dask_worker.name).values()}}
        results = client.gather(client.map(describe, range(3)))
        open("{out_folder}/tasks.txt", "w").write(f"{{results}} {{sorted(hosts)}}")
    """)
)
dask_processor = FrameworkProcessor(
    SKLearn, "1.2-1", role=role, instance_count=2, instance_type=instance_type, command=["with-dask", "python3"]
)
dask_processor.run(
    code="tasks.py",
    source_dir="source",
    outputs=[ProcessingOutput(output_name="out", destination=f"s3://{bucket}/dask", source=out_folder)],
)
results["dask"] = session.read_s3_file(bucket, "dask/tasks.txt")
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
