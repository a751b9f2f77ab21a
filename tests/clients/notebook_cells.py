"""The housing notebook, cell by cell, with AWS's framework images and with the SDK version that the notebook pins.

These lines differ from the notebook:

- The data come from a file, not from TensorFlow's `boston_housing`, and `S3Downloader` replaces `!aws s3 cp`.
- The role comes from the environment, and the default bucket is named: otherwise this SDK version would send requests
  to AWS's STS.
- The first job has no `ShardedByS3Key`. With this option, the job fails on AWS, as the notebook's own output shows,
  because three of the four hosts have no x_train.npy.
- `code/train.py` is not part of the notebook. The script in this file follows AWS's sample, for Keras 3: it exports a
  SavedModel, and also saves the model as `model.keras`, because Keras 3 cannot load SavedModels.
- The endpoint has an ml.t2.medium, because endpoints do not support ml.t3.medium. The rows of the request are the test
  data that the first job has scaled. Two misplaced brackets are moved.
- `batch-score.py` installs the version of TensorFlow in train-tensorflow, because TensorFlow 2.3.1 does not support
  Python 3.11.

Runs in the SDK's virtual environment. Usage: notebook_cells.py BOSTON.npz BUCKET TENSORFLOW-VERSION
"""

import json
import os
import sys
import tarfile
from pathlib import Path
from textwrap import dedent
from time import gmtime, strftime

import numpy as np
import sagemaker
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.s3 import S3Downloader
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.tensorflow import TensorFlow
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner, IntegerParameter

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

poll_quickly()
PROCESSING = str(Layout().processing("x").parent)

# --- set up
sess = sagemaker.session.Session(default_bucket=sys.argv[2])
bucket = sess.default_bucket()
execution_role = os.environ["SAGEMAKER_ROLE"]
for folder in ("data/train", "data/test", "data/raw", "model", "code"):
    Path(folder).mkdir(parents=True)

# --- raw data
with np.load(sys.argv[1]) as file:
    order = np.arange(len(file["x"]))
    np.random.RandomState(113).shuffle(order)
    x, y = file["x"][order], file["y"][order]
train_row_count = int(len(x) * 0.8)
np.save("data/raw/x_train.npy", x[:train_row_count])
np.save("data/raw/x_test.npy", x[train_row_count:])
np.save("data/raw/y_train.npy", y[:train_row_count])
np.save("data/raw/y_test.npy", y[train_row_count:])
s3_prefix = "tf-2-workflow"
raw_s3 = sess.upload_data(path="./data/raw/", key_prefix=f"{s3_prefix}/data/raw")

# --- SageMaker Processing
Path("preprocessing.py").write_text(
    dedent(f"""
    import glob
    import numpy as np
    import os
    from sklearn.preprocessing import StandardScaler

    if __name__=='__main__':

        input_files = glob.glob("{PROCESSING}/input/*.npy")
        print(f'\\nINPUT FILE LIST: \\n{{input_files}}\\n')

        scaler = StandardScaler()
        x_train = np.load(os.path.join('{PROCESSING}/input', 'x_train.npy'))
        scaler.fit(x_train)

        for file in input_files:
            raw = np.load(file)
            if 'y_' not in file:
                transformed = scaler.transform(raw)
            if 'train' in file:
                if 'y_' in file:
                    output_path = os.path.join('{PROCESSING}/train', 'y_train.npy')
                    np.save(output_path, raw)
                    print('SAVED LABEL TRAINING DATA FILE\\n')
                else:
                    output_path = os.path.join('{PROCESSING}/train', 'x_train.npy')
                    np.save(output_path, transformed)
                    print('SAVED TRANSFORMED TRAINING DATA FILE\\n')
            else:
                if 'y_' in file:
                    output_path = os.path.join('{PROCESSING}/test', 'y_test.npy')
                    np.save(output_path, raw)
                    print('SAVED LABEL TEST DATA FILE\\n')
                else:
                    output_path = os.path.join('{PROCESSING}/test', 'x_test.npy')
                    np.save(output_path, transformed)
                    print('SAVED TRANSFORMED TEST DATA FILE\\n')
    """)
)
sklearn_processor1 = SKLearnProcessor(
    framework_version="0.23-1",
    role=execution_role,
    instance_type="ml.m5.4xlarge",
    instance_count=4,
    sagemaker_session=sess,
)
processing_job_name = f"tf-2-workflow-{strftime('%d-%H-%M-%S', gmtime())}"
output_destination = f"s3://{bucket}/{s3_prefix}/data"
sklearn_processor1.run(
    code="preprocessing.py",
    job_name=processing_job_name,
    inputs=[ProcessingInput(source=raw_s3, destination=f"{PROCESSING}/input")],
    outputs=[
        ProcessingOutput(output_name="train", destination=f"{output_destination}/train", source=f"{PROCESSING}/train"),
        ProcessingOutput(output_name="test", destination=f"{output_destination}/test", source=f"{PROCESSING}/test"),
    ],
)
preprocessing_job_description = sklearn_processor1.jobs[-1].describe()
S3Downloader.download(f"{output_destination}/train", "data/train", sagemaker_session=sess)
S3Downloader.download(f"{output_destination}/test", "data/test", sagemaker_session=sess)

# --- hosted training
Path("code/train.py").write_text(
    dedent("""
    import argparse
    import os

    import numpy as np
    import tensorflow as tf

    parser = argparse.ArgumentParser()
    parser.add_argument('--epochs', type=int)
    parser.add_argument('--batch_size', type=int)
    parser.add_argument('--learning_rate', type=float)
    parser.add_argument('--model_dir', type=str)
    parser.add_argument('--train', type=str, default=os.environ.get('SM_CHANNEL_TRAIN'))
    parser.add_argument('--test', type=str, default=os.environ.get('SM_CHANNEL_TEST'))
    args, _ = parser.parse_known_args()

    def load(folder, split):
        return (np.load(os.path.join(folder, f'{name}_{split}.npy')) for name in 'xy')

    x_train, y_train = load(args.train, 'train')
    x_test, y_test = load(args.test, 'test')
    inputs = tf.keras.Input(shape=(13,))
    hidden = tf.keras.layers.Dense(64, activation='relu')(tf.keras.layers.Dense(64, activation='relu')(inputs))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(1)(hidden))
    model.compile(optimizer=tf.keras.optimizers.SGD(args.learning_rate, clipnorm=20.0), loss='mse')
    model.fit(x_train, y_train, args.batch_size, epochs=args.epochs, validation_data=(x_test, y_test), verbose=2)
    model.export(os.path.join(os.environ['SM_MODEL_DIR'], '1'))
    model.save(os.path.join(os.environ['SM_MODEL_DIR'], 'model.keras'))
    """)
)
train_s3 = sess.upload_data(path="./data/train/", key_prefix=f"{s3_prefix}/data/train")
test_s3 = sess.upload_data(path="./data/test/", key_prefix=f"{s3_prefix}/data/test")
inputs = {"train": train_s3, "test": test_s3}
hosted_estimator = TensorFlow(
    source_dir="code",
    entry_point="train.py",
    instance_type="ml.t3.medium",
    instance_count=1,
    hyperparameters={"epochs": 70, "batch_size": 128, "learning_rate": 0.01},
    role=execution_role,
    base_job_name="tf-2-workflow",
    framework_version="2.3.1",
    py_version="py37",
    sagemaker_session=sess,
)
hosted_estimator.fit(inputs)
S3Downloader.download(hosted_estimator.model_data, "model", sagemaker_session=sess)
with tarfile.open("model/model.tar.gz") as archive:
    has_saved_model = "1/saved_model.pb" in archive.getnames()

# --- automatic model tuning
tuner = HyperparameterTuner(
    hosted_estimator,
    "val_loss",
    {
        "learning_rate": ContinuousParameter(0.001, 0.2, scaling_type="Logarithmic"),
        "epochs": IntegerParameter(10, 50),
        "batch_size": IntegerParameter(64, 256),
    },
    [{"Name": "loss", "Regex": " loss: ([0-9\\.]+)"}, {"Name": "val_loss", "Regex": " val_loss: ([0-9\\.]+)"}],
    max_jobs=6,
    max_parallel_jobs=3,
    objective_type="Minimize",
)
tuning_job_name = f"tf-2-workflow-{strftime('%d-%H-%M-%S', gmtime())}"
tuner.fit(inputs, job_name=tuning_job_name)
tuner.wait()
tuner_metrics = sagemaker.HyperparameterTuningJobAnalytics(tuning_job_name, sagemaker_session=sess)
best_trials = tuner_metrics.dataframe().sort_values(["FinalObjectiveValue"], ascending=True).head(5)
total_time = tuner_metrics.dataframe()["TrainingElapsedTimeSeconds"].sum() / 3600
statuses = tuner_metrics.dataframe()["TrainingJobStatus"].value_counts()

# --- hosted endpoint
x_test, y_test = np.load("data/test/x_test.npy"), np.load("data/test/y_test.npy")
tuning_predictor = tuner.deploy(initial_instance_count=1, instance_type="ml.t2.medium")
results = tuning_predictor.predict(x_test[:10])["predictions"]
flat_list = [float(f"{item:.1f}") for sublist in results for item in sublist]
print(f"predictions: \t{np.array(flat_list)}")
print(f"target values: \t{y_test[:10].round(decimals=1)}")
sess.delete_endpoint(tuning_predictor.endpoint_name)

# --- batch scoring
Path("batch-score.py").write_text(
    dedent(f"""
    import os
    import subprocess
    import sys
    import numpy as np
    import pathlib
    import tarfile

    def install(package):
        subprocess.check_call([sys.executable, "-m", "pip", "install", package])

    if __name__ == "__main__":

        install('tensorflow-cpu=={sys.argv[3]}')
        model_path = f"{PROCESSING}/model/model.tar.gz"
        with tarfile.open(model_path, 'r:gz') as tar:
          tar.extractall('./model')
        import tensorflow as tf
        model = tf.keras.models.load_model('./model/model.keras')
        test_path = "{PROCESSING}/test/"
        x_test = np.load(os.path.join(test_path, 'x_test.npy'))
        y_test = np.load(os.path.join(test_path, 'y_test.npy'))
        scores = model.evaluate(x_test, y_test, verbose=2)
        print("\\nTest MSE :", scores)

        output_dir = "{PROCESSING}/batch"
        pathlib.Path(output_dir).mkdir(parents=True, exist_ok=True)
        evaluation_path = f"{{output_dir}}/score-report.txt"
        with open(evaluation_path, 'w') as writer:
          writer.write(f"Test MSE : {{scores}}")
    """)
)
batch_scorer = SKLearnProcessor(
    framework_version="0.23-1",
    instance_type="ml.c5.xlarge",
    instance_count=1,
    base_job_name="tf-2-workflow-batch",
    role=execution_role,
    sagemaker_session=sess,
)
batch_scorer.run(
    inputs=[
        ProcessingInput(source=tuner.best_estimator().model_data, destination=f"{PROCESSING}/model"),
        ProcessingInput(source=sklearn_processor1.latest_job.outputs[1].destination, destination=f"{PROCESSING}/test"),
    ],
    outputs=[ProcessingOutput(output_name="batch", source=f"{PROCESSING}/batch")],
    code="./batch-score.py",
)
report = f"{batch_scorer.latest_job.outputs[0].destination}/score-report.txt"
summary = {
    "processed": preprocessing_job_description["ProcessingJobStatus"],
    "saved_model": has_saved_model,
    "trials": dict(statuses.items()),
    "best": float(best_trials["FinalObjectiveValue"].iloc[0]),
    "hours": total_time,
    "predictions": flat_list,
    "targets": y_test[:10].tolist(),
    "report": S3Downloader.read_file(report, sagemaker_session=sess),
}
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(summary))
