"""Logs a run that has an artifact and a model, registers the model, and reads all of them.

Uses AWS's plug-in for MLflow. Runs in MLflow's virtual environment. Usage: mlflow_tracking.py TRACKING_URI
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient


class Double(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # the class has no type hints
    """A model that doubles numbers."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002  MLflow's interface
        return [2 * value for value in model_input]


mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("prices")
notes = Path("notes.txt")
notes.write_text("a note")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_params({"learning_rate": 0.1, "optimizer": "adam"})
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_artifact(str(notes), "texts")
    model = mlflow.pyfunc.log_model(name="double", python_model=Double(), pip_requirements=[])
version = mlflow.register_model(model.model_uri, "double")

client = MlflowClient()
tracked_run = client.get_run(run.info.run_id)
history = client.get_metric_history(run.info.run_id, "loss")
loaded_model = mlflow.pyfunc.load_model(f"models:/double/{version.version}")
print(
    json.dumps(
        {
            "status": tracked_run.info.status,
            "parameters": tracked_run.data.params,
            "losses": [[point.step, round(point.value, 2)] for point in history],
            "artifact": mlflow.artifacts.load_text(f"{tracked_run.info.artifact_uri}/texts/notes.txt"),
            "artifact_uri": tracked_run.info.artifact_uri,
            "prediction": loaded_model.predict([1, 2]),
            "versions": [item.version for item in client.search_model_versions("name='double'")],
            "experiments": [item.name for item in client.search_experiments(filter_string="name = 'prices'")],
        }
    )
)
