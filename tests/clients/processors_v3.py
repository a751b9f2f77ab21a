"""Runs users' processing scripts with the processors of the SageMaker SDK v3. The jobs name AWS's scikit-learn image.

This program runs in the SDK's virtual environment. Usage: processors_v3.py WHEEL

WHEEL is a wheel of a package `tiny` that has a `value`.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from textwrap import dedent

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.processing import FrameworkProcessor, ScriptProcessor
from sagemaker.core.shapes import ProcessingOutput, ProcessingS3Output

from microjobs.contract import Layout
from tests.clients.polling import poll_quickly

wheel = Path(sys.argv[1])
poll_quickly()
session, role = Session(), os.environ["SAGEMAKER_ROLE"]
bucket, instance_type = session.default_bucket(), "ml.m5.large"
image = image_uris.retrieve("sklearn", "us-east-1", version="1.2-1", instance_type=instance_type)
out_folder = str(Layout().processing("out"))
results: dict[str, object] = {}


def make_outputs(name: str) -> list[ProcessingOutput]:
    s3_output = ProcessingS3Output(s3_uri=f"s3://{bucket}/{name}", local_path=out_folder, s3_upload_mode="EndOfJob")
    return [ProcessingOutput(output_name=name, s3_output=s3_output)]


# --- ScriptProcessor
Path("script.py").write_text(
    f"import sys, pandas, pyarrow, sklearn\nopen('{out_folder}/argv.txt', 'w').write(' '.join(sys.argv[1:]))\n"
)
script_processor = ScriptProcessor(
    image_uri=image, command=["python3"], role=role, instance_count=1, instance_type=instance_type
)
script_processor.run(code="script.py", arguments=["--rows", "3"], outputs=make_outputs("script"), logs=False)
results["script"] = session.read_s3_file(bucket, "script/argv.txt")

# --- FrameworkProcessor
source = Path("source")
source.mkdir()
shutil.copy(wheel, source)
(source / "requirements.txt").write_text(f"./{wheel.name}\n")
(source / "job.py").write_text(
    dedent(f"""
    import sys
    import tiny
    open("{out_folder}/result.txt", "w").write(f"{{tiny.value}} {{sys.argv[1:]}}")
    """)
)
framework_processor = FrameworkProcessor(
    image_uri=image, role=role, instance_count=1, instance_type=instance_type, command=["python3"]
)
framework_processor.run(
    code="job.py", source_dir="source", arguments=["x"], outputs=make_outputs("framework"), logs=False
)
results["framework"] = session.read_s3_file(bucket, "framework/result.txt")
print()  # the SDK's output may not end with a line break, and the results need a line of their own
print(json.dumps(results))
