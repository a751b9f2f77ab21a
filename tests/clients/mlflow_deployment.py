"""Deploys a model of a tracking server with MLflow's SageMaker plug-in, invokes it, replaces it and deletes it.

Runs in MLflow's virtual environment. Usage: mlflow_deployment.py IMAGE TRACKING_URI
"""

import json
import os
import sys
from pathlib import Path

import boto3
import mlflow
from mlflow.deployments import get_deploy_client

HANDLERS = """
import json
from pathlib import Path


def model_fn(folder):
    return json.loads((Path(folder) / "artifacts" / "factor.json").read_text())


def input_fn(body, content_type):
    return json.loads(body)["instances"]


def predict_fn(numbers, factor):
    return [factor * number for number in numbers]


def output_fn(predictions, accept):
    return json.dumps({"predictions": predictions})
"""
"""The code that the image serve runs: `code_paths` puts it into the folder `code` of the model."""


class UnusedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # the class has no type hints
    """A model for `log_model`, which requires one. Its methods are not called: the image serve runs HANDLERS."""

    def predict(self, model_input: list[float]) -> list[float]:
        return model_input


def register_model(factor: int) -> str:
    """Log and register a model that multiplies numbers; return its URI."""
    Path("inference.py").write_text(HANDLERS)
    Path("factor.json").write_text(json.dumps(factor))
    model_info = mlflow.pyfunc.log_model(
        name="scale",
        python_model=UnusedModel(),
        artifacts={"factor": "factor.json"},
        code_paths=["inference.py"],
        pip_requirements=[],
        registered_model_name="scale",
    )
    return f"models:/scale/{model_info.registered_model_version}"


def invoke_endpoint() -> list[float]:
    """Send the request that MLflow's `predict` would send: `predict` itself needs scipy, which is not installed."""
    body, content_type = '{"instances": [1, 2]}', "application/json"
    response = runtime.invoke_endpoint(EndpointName="deployed", ContentType=content_type, Body=body)
    predictions: list[float] = json.load(response["Body"])["predictions"]
    return predictions


image, tracking_uri = sys.argv[1:]
runtime = boto3.client("sagemaker-runtime")
mlflow.set_tracking_uri(tracking_uri)
client = get_deploy_client("sagemaker")
config = {
    "image_url": image,
    "execution_role_arn": os.environ["SAGEMAKER_ROLE"],
    "region_name": os.environ["AWS_REGION"],
    "instance_type": "ml.m5.large",
    "instance_count": 1,
}
predictions = []
client.create_deployment("deployed", register_model(2), flavor="python_function", config=config)
status = client.get_deployment("deployed")["EndpointStatus"]
predictions.append(invoke_endpoint())
client.update_deployment("deployed", register_model(3), flavor="python_function", config={**config, "mode": "replace"})
predictions.append(invoke_endpoint())
endpoint_names = [item["EndpointName"] for item in client.list_deployments()]
client.delete_deployment("deployed", config={"region_name": config["region_name"]})
results = {
    "status": status,
    "listed": endpoint_names,
    "remaining": len(client.list_deployments()),
    "predictions": predictions,
}
print(json.dumps(results))
