"""One side of bench/overhead.py, in the SDK's interpreter: a fit() for each line of stdin, its seconds on stdout."""

import sys
import time

from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession

session = LocalSession()
estimator = Estimator(sys.argv[1], "arn:aws:iam::000000000000:role/microjobs", 1, "local", sagemaker_session=session)
for _ in sys.stdin:
    began = time.perf_counter()
    estimator.fit()
    print("seconds:", time.perf_counter() - began, flush=True)
