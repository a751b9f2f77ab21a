"""Runs an asynchronous endpoint, and a transform job that joins input and output, with the SageMaker SDK v2.

Runs in the SDK's virtual environment. Usage: asynchronous_v2.py SERVE-IMAGE MODEL.tar.gz
"""

import json
import os
import sys

import boto3
import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import CSVDeserializer
from sagemaker.exceptions import AsyncInferenceModelError
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.serializers import CSVSerializer
from sagemaker.transformer import Transformer

image, archive = sys.argv[1:]
sess = sagemaker.session.Session()
bucket = sess.default_bucket()
name = "sdk-hosting"
model_data = sess.upload_data(archive, key_prefix=name)

# --- an asynchronous endpoint; the waiter polls every second, because the SDK would wait 30 s first
model = Model(image, model_data, os.environ["SAGEMAKER_ROLE"], name=name, sagemaker_session=sess)
model.deploy(
    1,
    "ml.m5.large",
    endpoint_name=name,
    wait=False,
    async_inference_config=AsyncInferenceConfig(max_concurrent_invocations_per_instance=2),
)
boto3.client("sagemaker").get_waiter("endpoint_in_service").wait(
    EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
)
predictor = AsyncPredictor(Predictor(name, sess, CSVSerializer(), CSVDeserializer()), name=name)
waiter_config = WaiterConfig(max_attempts=6, delay=1)  # the SDK polls for the result and for the failure
prediction = predictor.predict([[1, 2, 3], [4, 5, 6]], waiter_config=waiter_config)
try:
    predictor.predict("oops", waiter_config=waiter_config)
    failure = ""  # the test expects a failure
except AsyncInferenceModelError as error:
    failure = str(error)
predictor.delete_endpoint()

# --- a transform job that removes the first column from the input, and joins it with the predictions
rows = sess.upload_string_as_file_body("first,1,2,3\nsecond,4,5,6\n", bucket, f"{name}/rows/rows.csv")
transformer = Transformer(
    name, 1, "ml.m5.large", output_path=f"s3://{bucket}/{name}/joined", accept="text/csv", assemble_with="Line"
)
transformer.transform(
    rows,
    content_type="text/csv",
    split_type="Line",
    input_filter="$[1:]",
    join_source="Input",
    output_filter="$[0,-1]",
    logs=False,
)
joined_rows = sess.read_s3_file(bucket, f"{name}/joined/rows.csv.out")
print(json.dumps({"predicted": prediction, "failure": failure, "joined": joined_rows}))
