// The hyperparameters, final metrics and curves of training jobs.

import { call } from "../../lib/api.js";
import { findKind, isActive } from "../../lib/kinds.js";
import { listMetrics, readCurves } from "../../lib/metrics.js";

/** Return `{runs, columns, charts, isActive}`. `columns` names the hyperparameters first, and then the metrics. */
export async function loadRuns(names, signal) {
  const runs = await Promise.all(names.map((name) => loadRun(name, signal)));
  const list = (getMembers) => [...new Set(runs.flatMap((run) => Object.keys(getMembers(run))))].sort();
  const columns = [...new Set([...list((run) => run.parameters), ...list((run) => run.metrics)])];
  return { runs, columns, charts: joinCurves(runs), isActive: runs.some((run) => run.isActive) };
}

async function loadRun(name, signal) {
  const job = await call("sagemaker", "DescribeTrainingJob", { TrainingJobName: name }, { signal });
  const active = isActive(findKind("training-job"), job.TrainingJobStatus);
  const start = job.TrainingStartTime ?? job.CreationTime;
  const end = active ? Date.now() / 1000 + 1 : job.LastModifiedTime + 60;
  const curves = await readCurves(await listMetrics("TrainingJobName", name, signal), job.CreationTime - 1, end, signal);
  const metrics = Object.fromEntries((job.FinalMetricDataList ?? []).map((one) => [one.MetricName, one.Value]));
  const parameters = job.HyperParameters ?? {};
  const values = { ...parameters, ...metrics };
  return { name, status: job.TrainingJobStatus, isActive: active, start, parameters, metrics, values, curves };
}

/** Return one chart per metric, with one curve per job. */
function joinCurves(runs) {
  const charts = new Map();
  for (const run of runs) {
    for (const { metric: { MetricName: title }, times, values } of run.curves) {
      if (!charts.has(title)) charts.set(title, { title, curves: [] });
      charts.get(title).curves.push({ label: run.name, x: times.map((time) => time - run.start), y: values });
    }
  }
  return [...charts.values()];
}
