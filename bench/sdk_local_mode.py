"""SageMaker SDK local mode, for bench/overhead.py and bench/channel.py. Runs with the SDK's interpreter.

For each line on stdin, calls fit() and prints its seconds. Arguments: the image, and the S3 URI of the channel `train`,
if there is one.
"""

import sys
import time

from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession

session = LocalSession()
estimator = Estimator(sys.argv[1], "arn:aws:iam::000000000000:role/microjobs", 1, "local", sagemaker_session=session)
for _ in sys.stdin:
    start_time = time.perf_counter()
    estimator.fit({"train": sys.argv[2]} if sys.argv[2:] else None)
    print("seconds:", time.perf_counter() - start_time, flush=True)
