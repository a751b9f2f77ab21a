"""Registers a model with the SageMaker SDK v2, deploys its version, and changes the model package.

Runs in the SDK's virtual environment. Usage: registry_v2.py SERVE-IMAGE BUCKET
"""

import json
import os
import sys

import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.metadata_properties import MetadataProperties
from sagemaker.model import Model, ModelPackage
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

from tests.clients.polling import poll_quickly

serve_image, bucket = sys.argv[1:]
poll_quickly()
session = sagemaker.Session()
client, role = session.sagemaker_client, os.environ["SAGEMAKER_ROLE"]
instance_types = ["ml.m5.large"]
model = Model(
    serve_image,
    f"s3://{bucket}/registry/model.tar.gz",
    role,
    predictor_cls=Predictor,
    env={"A": "b"},
    sagemaker_session=session,
)
statistics = MetricsSource(content_type="application/json", s3_uri=f"s3://{bucket}/registry/metrics.json")
results: dict[str, object] = {}

# --- a version; the SDK also creates its group
packages = [
    model.register(
        ["text/csv"],
        ["text/csv"],
        inference_instances=instance_types,
        transform_instances=instance_types,
        model_package_group_name="registry-v2",
        model_metrics=ModelMetrics(model_statistics=statistics),
        metadata_properties=MetadataProperties(commit_id="abc"),
        customer_metadata_properties={"team": "prices"},
        description=f"number {number}",
    )
    for number in range(2)
]
description = client.describe_model_package(ModelPackageName=packages[1].model_package_arn)
results["version"] = description["ModelPackageVersion"]
results["statistics"] = description["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
results["status"] = description["ModelApprovalStatus"]

# --- a deployment, which approves the version
package = ModelPackage(role, model_package_arn=description["ModelPackageArn"], sagemaker_session=session)
package.predictor_cls = Predictor
predictor = package.deploy(
    1, instance_types[0], endpoint_name="registry-v2", serializer=CSVSerializer(), deserializer=CSVDeserializer()
)
results["predicted"] = predictor.predict([[1, 2, 3]])
predictor.delete_endpoint()

# --- changes of the package
package.update_approval_status("Rejected", "too slow")
package.update_customer_metadata({"stage": "test"})
package.remove_customer_metadata_properties(["team"])
package.add_inference_specification(name="other", image_uris=["other:1"])
description = client.describe_model_package(ModelPackageName=package.model_package_arn)
results["changed"] = [description["ModelApprovalStatus"], description["ApprovalDescription"]]
results["metadata"] = description["CustomerMetadataProperties"]
results["specifications"] = [item["Name"] for item in description["AdditionalInferenceSpecifications"]]

# --- a package without a group, and a clone
package_without_group = model.register(
    ["text/csv"],
    ["text/csv"],
    inference_instances=instance_types,
    transform_instances=instance_types,
    model_package_name="registry-v2",
)
session.wait_for_model_package("registry-v2")
results["withoutGroup"] = package_without_group.model_package_arn.rpartition(":")[2]
clone = model.register(model_package_group_name="registry-v2", source_uri=packages[0].model_package_arn)
results["clone"] = clone.model_package_arn.rpartition("/")[2]
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
