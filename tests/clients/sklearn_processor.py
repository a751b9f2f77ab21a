"""Runs a user's script in AWS's scikit-learn image, as in the housing notebook. A local image replaces AWS's image.

Runs in the SDK's virtual environment. Usage: sklearn_processor.py WORK-FOLDER
"""

import os
import sys
from pathlib import Path

import numpy as np
import sagemaker
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.sklearn.processing import SKLearnProcessor

from microjobs.contract import Layout

layout = Layout()
source, destination = str(layout.processing("input")), str(layout.processing("train"))

SCRIPT = f"""
import numpy as np
from sklearn.preprocessing import StandardScaler
x = np.load("{source}/x_train.npy")
np.save("{destination}/x_train.npy", StandardScaler().fit_transform(x))
"""

work_folder = Path(sys.argv[1])
(work_folder / "raw").mkdir()
np.save(work_folder / "raw" / "x_train.npy", np.random.default_rng(0).normal(5, 3, (100, 4)))
(work_folder / "preprocessing.py").write_text(SCRIPT)

session = sagemaker.Session()
processor = SKLearnProcessor(
    framework_version="0.23-1",
    role=os.environ["SAGEMAKER_ROLE"],
    instance_type="ml.m5.4xlarge",
    instance_count=1,
    sagemaker_session=session,
)
raw = session.upload_data(str(work_folder / "raw"), key_prefix="raw")
processor.run(
    code=str(work_folder / "preprocessing.py"),
    inputs=[ProcessingInput(source=raw, destination=source)],
    outputs=[ProcessingOutput(output_name="train", source=destination)],
    logs=False,
)
sagemaker.s3.S3Downloader.download(f"{processor.latest_job.outputs[0].destination}/x_train.npy", str(work_folder))
scaled = np.load(work_folder / "x_train.npy")
print(f"mean {abs(scaled.mean()):.6f} std {scaled.std():.6f}")
