"""Calls Airflow's `SageMakerHook`: trains a model and deploys it, lists and counts jobs, and deletes the model.

Prints the results as JSON. The test runs this program in Airflow's virtual environment: airflow_hooks.py IMAGE BUCKET
"""

import json
import os
import sys

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

image, bucket = sys.argv[1:]
role = os.environ["SAGEMAKER_ROLE"]
hook = SageMakerHook(aws_conn_id=None)
training_request = {
    "TrainingJobName": "airflow",
    "RoleArn": role,
    "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/airflow"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
hook.create_training_job(training_request, wait_for_completion=True, print_log=False, check_interval=1)
description = hook.describe_training_job("airflow")
hook.create_model({"ModelName": "airflow", "PrimaryContainer": {"Image": image}, "ExecutionRoleArn": role})
variant = {"VariantName": "v", "ModelName": "airflow", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
hook.create_endpoint_config({"EndpointConfigName": "airflow", "ProductionVariants": [variant]})
endpoint = {"EndpointName": "airflow", "EndpointConfigName": "airflow"}
hook.create_endpoint(endpoint, wait_for_completion=True, check_interval=1)
results = {
    "status": description["TrainingJobStatus"],
    "training_jobs": [item["TrainingJobName"] for item in hook.list_training_jobs(name_contains="airflow")],
    "processing_job_count": hook.count_processing_jobs_by_name("airflow"),
    "endpoint": hook.describe_endpoint("airflow")["EndpointStatus"],
}
hook.delete_model("airflow")
print(json.dumps(results))
