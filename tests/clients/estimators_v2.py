"""Runs typical training scripts with the SageMaker SDK v2, deploys their models, and transforms rows.

The SDK's estimators name AWS's framework images.

Runs in the SDK's virtual environment. Usage: estimators_v2.py WHEEL

WHEEL is a wheel of the package `tiny`. The requirements.txt of each script names this wheel, and each script imports
the package.
"""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import sagemaker
from sagemaker.pytorch import PyTorch
from sagemaker.sklearn import SKLearn
from sagemaker.tensorflow import TensorFlow

from tests.clients.polling import poll_quickly

poll_quickly()
session, role = sagemaker.Session(), os.environ["SAGEMAKER_ROLE"]
wheel = Path(sys.argv[1])
results: dict[str, object] = {}

READ_DATA_CODE = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--model_dir")
    parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
    options, _ = parser.parse_known_args()
    x, y = (np.load(os.path.join(options.train, f"{name}_train.npy")) for name in "xy")
    model_folder = os.environ["SM_MODEL_DIR"]
    import tiny  # from requirements.txt
"""
SCRIPTS = {
    "sklearn": f"""
import os
import joblib
import numpy as np

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

if __name__ == "__main__":
    {READ_DATA_CODE}
    from sklearn.linear_model import SGDRegressor
    from settings import SEED
    model = SGDRegressor(max_iter=options.epochs, eta0=options.learning_rate, random_state=SEED, tol=None)
    model.fit(x, y)
    joblib.dump(model, os.path.join(model_folder, "model.joblib"))
    print(f"loss: {{np.mean((model.predict(x) - y) ** 2):.6f}};")
""",
    "tensorflow": f"""
import os
import numpy as np
import tensorflow as tf
from settings import SEED

if __name__ == "__main__":
    {READ_DATA_CODE}
    tf.keras.utils.set_random_seed(SEED)
    model = tf.keras.Sequential([tf.keras.Input((x.shape[1],)), tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(options.learning_rate), "mse")
    history = model.fit(x, y, epochs=options.epochs, verbose=0)
    model.export(os.path.join(model_folder, "1"))
    print(f"loss: {{history.history['loss'][-1]:.6f}};")
""",
    "pytorch": f"""
import os
import numpy as np
import torch

def model_fn(model_dir):
    model = torch.nn.Linear(4, 1)
    model.load_state_dict(torch.load(os.path.join(model_dir, "model.pth"), weights_only=True))
    return model

if __name__ == "__main__":
    {READ_DATA_CODE}
    from settings import SEED
    torch.manual_seed(SEED)
    model = torch.nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), options.learning_rate)
    rows, targets = torch.tensor(x).float(), torch.tensor(y).float()[:, None]
    for _ in range(options.epochs):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(rows), targets)
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), os.path.join(model_folder, "model.pth"))
    print(f"loss: {{loss.item():.6f}};")
""",
}
ESTIMATORS = {
    "sklearn": (SKLearn, {"framework_version": "1.2-1"}),
    "tensorflow": (TensorFlow, {"framework_version": "2.3.1", "py_version": "py37"}),
    "pytorch": (PyTorch, {"framework_version": "2.3", "py_version": "py311"}),
}

random = np.random.default_rng(0)
x = random.normal(size=(200, 4))
Path("data").mkdir()
np.save("data/x_train.npy", x)
np.save("data/y_train.npy", x @ [1.0, 2.0, -1.0, 0.5] + 3)
train = session.upload_data("data", key_prefix="estimators/data")

for name, script in SCRIPTS.items():
    source = Path(f"source-{name}")
    source.mkdir()
    (source / "train.py").write_text(script)
    (source / "settings.py").write_text("SEED = 1\n")
    shutil.copy(wheel, source)
    (source / "requirements.txt").write_text(f"./{wheel.name}\n")
    estimator_class, versions = ESTIMATORS[name]
    estimator = estimator_class(
        entry_point="train.py",
        source_dir=str(source),
        role=role,
        instance_count=1,
        instance_type="ml.m5.large",
        hyperparameters={"epochs": 100, "learning_rate": 0.05},
        metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+);"}],
        **versions,
    )
    estimator.fit({"train": train})
    description = estimator.latest_training_job.describe()
    sagemaker.s3.S3Downloader.download(estimator.model_data, f"model-{name}")
    with tarfile.open(f"model-{name}/model.tar.gz") as archive:
        files = sorted(archive.getnames())
    predictor = estimator.deploy(1, "ml.m5.large", endpoint_name=name)
    predictions = predictor.predict(np.ones((2, 4), np.float32))
    values = predictions["predictions"] if isinstance(predictions, dict) else predictions
    predictor.delete_endpoint()
    results[name] = {
        "loss": description["FinalMetricDataList"][0]["Value"],
        "files": files,
        "predicted": [round(float(value), 1) for value in np.ravel(values)],
    }

# --- batch transform, with the last estimator
session.upload_string_as_file_body("1,1,1,1\n0,0,0,0\n", session.default_bucket(), "estimators/rows.csv")
output = f"s3://{session.default_bucket()}/estimators/out"
transformer = estimator.transformer(1, "ml.m5.large", output_path=output, accept="text/csv")
transformer.transform(
    f"s3://{session.default_bucket()}/estimators/rows.csv", content_type="text/csv", split_type="Line", logs=False
)
transform_output = session.read_s3_file(session.default_bucket(), "estimators/out/rows.csv.out")
results["transformed"] = [round(float(line), 1) for line in transform_output.split()]
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
