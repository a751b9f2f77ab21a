"""MLflow's SageMaker plugin: deploys a model, describes it, replaces it and deletes it.

Runs in MLflow's virtual environment. Usage: mlflow_deployment.py IMAGE
"""

import json
import os
import sys
from pathlib import Path

from mlflow.deployments import get_deploy_client

FLAVOR = {"loader_module": "loader", "python_version": "3.11.0", "env": {}}
model = Path("model")
model.mkdir()
(model / "MLmodel").write_text(json.dumps({"flavors": {"python_function": FLAVOR}, "model_uuid": "0" * 32}))

client = get_deploy_client("sagemaker")
config = {
    "image_url": sys.argv[1],
    "execution_role_arn": os.environ["SAGEMAKER_ROLE"],
    "region_name": os.environ["AWS_REGION"],
    "instance_type": "ml.m5.large",
    "instance_count": 1,
}
client.create_deployment("deployed", str(model), flavor="python_function", config=config)
status = client.get_deployment("deployed")["EndpointStatus"]
client.update_deployment("deployed", str(model), flavor="python_function", config={**config, "mode": "replace"})
listed = [item["EndpointName"] for item in client.list_deployments()]
client.delete_deployment("deployed", config={"region_name": config["region_name"]})
print(json.dumps({"status": status, "listed": listed, "remaining": len(client.list_deployments())}))
