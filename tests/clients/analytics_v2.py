"""Prints the metrics of a training job as the SageMaker SDK v2 reads them. Usage: analytics_v2.py JOB"""

import json
import sys

import sagemaker
from sagemaker.analytics import TrainingJobAnalytics

name = sys.argv[1]
metrics_per_second = TrainingJobAnalytics(name, period=1).dataframe()
losses_per_minute = TrainingJobAnalytics(name, ["loss"], sagemaker.Session()).dataframe()
print(
    json.dumps(
        {
            "columns": sorted(metrics_per_second.columns),
            "metrics": sorted(set(metrics_per_second["metric_name"])),
            "losses": list(metrics_per_second[metrics_per_second["metric_name"] == "loss"]["value"]),
            "mean_per_minute": sum(losses_per_minute["value"]) / len(losses_per_minute),
        }
    )
)
