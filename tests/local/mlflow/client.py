"""Logs a run with MLflow's own client: `client.py EXPERIMENT FILE`.

Prints the id of the run, the last loss of each run of the experiment, and the text of the artifact, as JSON.
"""

import json
import sys

import mlflow

experiment, file = sys.argv[1:]
mlflow.set_experiment(experiment)
with mlflow.start_run(run_name="first") as run:
    mlflow.log_params({"learning_rate": 0.1})
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_artifact(file, "notes")
runs = mlflow.search_runs(experiment_names=[experiment])
text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/{file.rpartition('/')[2]}")
print(json.dumps({"run": run.info.run_id, "loss": runs["metrics.loss"].tolist(), "text": text}))
