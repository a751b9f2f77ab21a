"""Registers a model with the SageMaker SDK v3, approves its version, and deploys it.

Runs in the SDK's virtual environment. Usage: registry_v3.py SERVE-IMAGE BUCKET
"""

import json
import os
import sys

from sagemaker.core.resources import Endpoint, EndpointConfig, Model, ModelPackage, ModelPackageGroup
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
from sagemaker.serve import ModelBuilder

from tests.clients.polling import poll_quickly

serve_image, bucket = sys.argv[1:]
poll_quickly()
role, instance_type = os.environ["SAGEMAKER_ROLE"], "ml.m5.large"
results: dict[str, object] = {}

# --- a version; the SDK also creates its group
builder = ModelBuilder(
    image_uri=serve_image,
    s3_model_data_url=f"s3://{bucket}/registry/model.tar.gz",
    role_arn=role,
    instance_type=instance_type,
)
builder.build(model_name="registry-v3-source")
builder.register(
    model_package_group_name="registry-v3",
    content_types=["text/csv"],
    response_types=["text/csv"],
    inference_instances=[instance_type],
    transform_instances=[instance_type],
    approval_status="PendingManualApproval",
)
group = ModelPackageGroup.get("registry-v3")
results["group"] = group.model_package_group_status
(package_summary,) = ModelPackage.get_all(model_package_group_name="registry-v3")
results["version"] = package_summary.model_package_version

# --- its approval
package = ModelPackage.get(package_summary.model_package_arn)
results["status"] = package.model_approval_status
package.update(model_approval_status="Approved", approval_description="good")
package = ModelPackage.get(package_summary.model_package_arn)
results["approved"] = [package.model_approval_status, package.approval_description]

# --- its deployment
container = ContainerDefinition(model_package_name=package.model_package_arn)
Model.create(model_name="registry-v3", primary_container=container, execution_role_arn=role)
variant = ProductionVariant(
    variant_name="main", model_name="registry-v3", instance_type=instance_type, initial_instance_count=1
)
EndpointConfig.create(endpoint_config_name="registry-v3", production_variants=[variant])
endpoint = Endpoint.create(endpoint_name="registry-v3", endpoint_config_name="registry-v3")
endpoint.wait_for_status("InService")
response = endpoint.invoke(body=b"1,2,3\n", content_type="text/csv", accept="text/csv")
results["predicted"] = response.body.read().decode()
endpoint.delete()
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
