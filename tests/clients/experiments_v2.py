"""Logs two runs of an experiment with the SageMaker SDK v2, reads them, and associates an artifact with one of them.

Runs in the SDK's virtual environment. Usage: experiments_v2.py FOLDER
"""

import json
import sys
from pathlib import Path

import sagemaker
from sagemaker.analytics import ExperimentAnalytics
from sagemaker.experiments.run import Run, list_runs, load_run

from tests.clients.polling import poll_quickly

poll_quickly()
folder = Path(sys.argv[1])
session = sagemaker.Session()
results: dict[str, object] = {}

# --- two runs of one experiment
notes = folder / "notes.txt"
notes.write_text("a note")
for name, rate in (("first", 0.1), ("second", 0.01)):
    with Run(experiment_name="prices", run_name=name, sagemaker_session=session) as run:
        run.log_parameters({"learning_rate": rate, "optimizer": "adam"})
        for step in range(3):
            run.log_metric(name="loss", value=rate * (3 - step), step=step)
        run.log_file(str(notes), name="notes", is_output=True)
        run.log_artifact(name="data", value="s3://bucket/data.csv", media_type="text/csv", is_output=False)

# --- the contents of the runs
with load_run(experiment_name="prices", run_name="second", sagemaker_session=session) as run:
    run.log_parameter("epochs", 3)
    component = run._trial_component
    results["parameters"] = dict(component.parameters)
    results["artifacts"] = [sorted(component.input_artifacts), sorted(component.output_artifacts)]
runs = list_runs("prices", sagemaker_session=session)
results["runs"] = sorted(run.run_name for run in runs)
client = session.sagemaker_client
description = client.describe_trial_component(TrialComponentName=component.trial_component_name)
results["status"] = description["Status"]["PrimaryStatus"]
results["metrics"] = {
    metric["MetricName"]: [metric["Count"], round(metric["Last"], 4), round(metric["Max"], 4)]
    for metric in description["Metrics"]
}
arn = description["TrialComponentArn"]
query = {"MetricName": "loss", "ResourceArn": arn, "MetricStat": "Last", "Period": "IterationNumber"}
metrics = session.boto_session.client("sagemaker-metrics")
series = metrics.batch_get_metrics(MetricQueries=[{**query, "XAxisType": "IterationNumber"}])
results["series"] = [round(value, 4) for value in series["MetricQueryResults"][0]["MetricValues"]]

source = {"SourceUri": "s3://bucket/curve.json", "SourceTypes": []}
artifact = client.create_artifact(ArtifactName="curve", Source=source, ArtifactType="PrecisionRecall")["ArtifactArn"]
client.add_association(SourceArn=arn, DestinationArn=artifact, AssociationType="Produced")
associations = client.list_associations(SourceArn=arn)["AssociationSummaries"]
results["produced"] = [(item["AssociationType"], item["DestinationType"]) for item in associations]

# --- the table of an experiment
table = ExperimentAnalytics(experiment_name="prices", sagemaker_session=session).dataframe()
results["table"] = sorted(float(value) for value in table["learning_rate"])
print(json.dumps(results))
