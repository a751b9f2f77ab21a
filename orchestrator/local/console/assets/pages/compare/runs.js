// The hyperparameters, final metrics and curves of runs. Only runs that have changed are read again.

import { call } from "../../lib/api.js";
import { findKind } from "../../lib/kinds.js";

const MAX_QUERIES = 100; // maximum number of metrics per request
const MAX_CURVE_POINTS = 2000;
const MAX_POINTS = 40_000; // maximum number of points of all curves of a chart together
const MAX_REQUESTS = 4; // maximum number of requests at the same time: other tabs need connections, too

const DURATION = "duration (s)";

/** Reads the runs of a source. Between two calls of `read`, it keeps the runs that have not changed.
 *
 * The selection is the names of jobs, or the name of the resource whose runs are read. */
export class RunReader {
  constructor(source, selection) {
    Object.assign(this, { source, selection, names: null, runs: new Map() });
  }

  /** Discard the runs that an event affects, and the list of runs if the event may change it. Return whether this
   * discards anything. */
  discardChanged({ changes, metrics, isTruncated }) {
    const { runType, isListChange } = this.source;
    const dimension = findKind(runType).nameMember;
    const names = [...changes.filter((item) => item.kind === runType).map((item) => item.name), ...metrics.map((item) => item[dimension])];
    const affectedNames = isTruncated ? [...this.runs.keys()] : names.filter((name) => this.runs.has(name));
    affectedNames.forEach((name) => this.runs.delete(name));
    const isListAffected = isTruncated || changes.some((change) => isListChange(change, this.selection) && !affectedNames.includes(change.name));
    if (isListAffected) this.names = null;
    return isListAffected || affectedNames.length > 0;
  }

  /** Return `{runs, columns, metrics}`. `columns` names the hyperparameters, the duration, and then the metrics. */
  async read(signal) {
    this.names ??= await this.source.list(this.selection, signal);
    const missingNames = this.names.filter((name) => !this.runs.has(name));
    const newRuns = await mapInParallel(missingNames, (name) => describeRun(this.source.runType, name, signal));
    await addCurves(newRuns, signal);
    newRuns.forEach((run) => this.runs.set(run.name, run));
    // an event may have discarded a run during this call
    const runs = this.names.map((name) => this.runs.get(name)).filter(Boolean);
    const listNames = (getMembers) => [...new Set(runs.flatMap((run) => Object.keys(getMembers(run))))].sort();
    const metrics = listNames((run) => run.metrics);
    const durations = runs.some((run) => run.values[DURATION]) ? [DURATION] : [];
    const columns = [...new Set([...listNames((run) => run.parameters), ...durations, ...metrics])];
    return { runs, columns, metrics };
  }
}

async function mapInParallel(items, map) {
  const results = [];
  const entries = items.entries();
  const work = async () => {
    for (const [index, item] of entries) results[index] = await map(item);
  };
  await Promise.all(Array.from({ length: MAX_REQUESTS }, work));
  return results;
}

const describeRun = (type, name, signal) => (type === "training-job" ? describeJob(name, signal) : describeTrialComponent(name, signal));

async function describeJob(name, signal) {
  const job = await call("sagemaker", "DescribeTrainingJob", { TrainingJobName: name }, { signal });
  const finalMetrics = (job.FinalMetricDataList ?? []).map((metric) => [metric.MetricName, metric.Value]);
  const definedNames = (job.AlgorithmSpecification?.MetricDefinitions ?? []).map((definition) => definition.Name);
  return makeRun(name, job.TrainingJobArn, job.TrainingJobStatus, {
    parameters: job.HyperParameters ?? {},
    metrics: Object.fromEntries(finalMetrics),
    curveNames: [...new Set([...finalMetrics.map(([metric]) => metric), ...definedNames])],
    start: job.TrainingStartTime ?? job.CreationTime,
    end: job.TrainingEndTime,
  });
}

async function describeTrialComponent(name, signal) {
  const component = await call("sagemaker", "DescribeTrialComponent", { TrialComponentName: name }, { signal });
  const parameters = Object.entries(component.Parameters ?? {}).map(([key, parameter]) => [key, String(parameter.NumberValue ?? parameter.StringValue)]);
  const metrics = (component.Metrics ?? []).map((metric) => [metric.MetricName, metric.Last]);
  return makeRun(name, component.TrialComponentArn, component.Status?.PrimaryStatus ?? "", {
    parameters: Object.fromEntries(parameters),
    metrics: Object.fromEntries(metrics),
    curveNames: [...new Set(metrics.map(([metric]) => metric))],
    start: component.StartTime ?? component.CreationTime,
    end: component.EndTime,
  });
}

function makeRun(name, arn, status, members) {
  const { parameters, metrics, start, end } = members;
  const duration = end && { [DURATION]: (end - start).toFixed(1) };
  return { name, arn, status, ...members, values: { ...parameters, ...duration, ...metrics }, curves: [] };
}

/** Add the points of the metrics as `curves: [{title, steps, valuesByStep, times, valuesByTime}]`. If a metric has no
 * final value yet, its last point is its value. */
async function addCurves(runs, signal) {
  const curves = runs.flatMap((run) => run.curveNames.map((title) => ({ run, title })));
  for (let start = 0; start < curves.length; start += MAX_QUERIES) {
    const part = curves.slice(start, start + MAX_QUERIES);
    const [byTime, byStep] = await Promise.all(["Timestamp", "IterationNumber"].map((axis) => readPoints(part, axis, signal)));
    part.forEach(({ run, title }, index) => {
      const { XAxisValues: steps, MetricValues: valuesByStep } = byStep[index];
      if (!valuesByStep.length) return;
      run.curves.push({ title, steps, valuesByStep, times: byTime[index].XAxisValues, valuesByTime: byTime[index].MetricValues });
      run.metrics[title] ??= valuesByStep.at(-1);
      run.values[title] ??= valuesByStep.at(-1);
    });
  }
}

async function readPoints(curves, axis, signal) {
  const queries = curves.map(({ run, title }) => ({
    MetricName: title,
    ResourceArn: run.arn,
    MetricStat: "Last",
    Period: "IterationNumber",
    XAxisType: axis,
  }));
  const answer = await call("sagemaker-metrics", "BatchGetMetrics", { MetricQueries: queries }, { signal });
  return answer.MetricQueryResults;
}

/** Return one chart per metric, with one curve per run. The curves of a chart together have a limited number of points.
 *
 * @param isByStep whether x is the number of the iteration; otherwise, it is the time since the start of the run. */
export function makeCharts(runs, isByStep) {
  const charts = new Map();
  const maxPoints = Math.min(MAX_CURVE_POINTS, Math.ceil(MAX_POINTS / Math.max(runs.length, 1)));
  for (const run of runs) {
    for (const { title, steps, valuesByStep, times, valuesByTime } of run.curves) {
      if (!charts.has(title)) charts.set(title, { title, curves: [] });
      const [x, y] = isByStep ? [steps, valuesByStep] : [times.map((time) => Math.max(0, Math.round(time - run.start))), valuesByTime];
      charts.get(title).curves.push({ label: run.name, ...thinOut(x, y, maxPoints) });
    }
  }
  return [...charts.values()];
}

/** Keep every n-th point and the last one. */
function thinOut(x, y, maxPoints) {
  const stride = Math.ceil(y.length / maxPoints);
  const isKept = (_, index) => index % stride === 0 || index === y.length - 1;
  return stride > 1 ? { x: x.filter(isKept), y: y.filter(isKept) } : { x, y };
}
