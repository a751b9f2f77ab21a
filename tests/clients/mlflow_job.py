"""Training script that logs a metric and an artifact to the MLflow run of its training job.

Runs in a training job, with the packages of mlflow.lock.
"""

import mlflow

with mlflow.start_run() as run:
    mlflow.log_param("optimizer", "adam")
    for epoch in range(3):
        mlflow.log_metric("accuracy", epoch / 4, step=epoch)
        print(f"loss: {1 / (epoch + 1):.2f}", flush=True)
    mlflow.log_text("weights", "weights.txt")
