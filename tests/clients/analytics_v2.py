"""Prints the metrics of a training job as the SageMaker SDK v2 reads them. Usage: analytics_v2.py JOB"""

import json
import sys

import sagemaker
from sagemaker.analytics import TrainingJobAnalytics

name = sys.argv[1]
every_second = TrainingJobAnalytics(name, period=1).dataframe()
every_minute = TrainingJobAnalytics(name, ["loss"], sagemaker.Session()).dataframe()
print(
    json.dumps(
        {
            "columns": sorted(every_second.columns),
            "metrics": sorted(set(every_second["metric_name"])),
            "losses": list(every_second[every_second["metric_name"] == "loss"]["value"]),
            "minutes": sum(every_minute["value"]) / len(every_minute),
        }
    )
)
