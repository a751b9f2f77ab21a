// The hyperparameters, final metrics and curves of runs. Only runs that have changed are read again.

import { call } from "../../lib/api.js";
import { findKind } from "../../lib/kinds.js";

const MAX_QUERIES = 100; // per request
const MAX_CURVE_POINTS = 2000;
const MAX_POINTS = 40_000; // of all curves of a chart
const MAX_REQUESTS = 4; // at the same time: other pages need connections, too

const DURATION = "duration (s)";

/** Reads the runs of a source, and keeps those that have not changed for the next call of `read`. */
export class RunReader {
  constructor(source, value) {
    Object.assign(this, { source, value, names: null, runs: new Map() });
  }

  /** Discard the runs, and the list of their names, that an event affects. Return whether it affects any. */
  discardChanged({ changes, metrics, many }) {
    const { runType, isListChange } = this.source;
    const dimension = findKind(runType).nameMember;
    const names = [...changes.filter((one) => one.kind === runType).map((one) => one.name), ...metrics.map((one) => one[dimension])];
    const known = many ? [...this.runs.keys()] : names.filter((name) => this.runs.has(name));
    known.forEach((name) => this.runs.delete(name));
    const isListAffected = many || changes.some((change) => isListChange(change, this.value) && !known.includes(change.name));
    if (isListAffected) this.names = null;
    return isListAffected || known.length > 0;
  }

  /** Return `{runs, columns, metrics}`. `columns` names the hyperparameters, the duration, and then the metrics. */
  async read(signal) {
    this.names ??= await this.source.list(this.value, signal);
    const missing = this.names.filter((name) => !this.runs.has(name));
    const loaded = await mapInParallel(missing, (name) => describeRun(this.source.runType, name, signal));
    await addCurves(loaded, signal);
    loaded.forEach((run) => this.runs.set(run.name, run));
    const runs = this.names.map((name) => this.runs.get(name)).filter(Boolean); // events may discard runs meanwhile
    const list = (getMembers) => [...new Set(runs.flatMap((run) => Object.keys(getMembers(run))))].sort();
    const metrics = list((run) => run.metrics);
    const durations = runs.some((run) => run.values[DURATION]) ? [DURATION] : [];
    const columns = [...new Set([...list((run) => run.parameters), ...durations, ...metrics])];
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

const describeRun = (type, name, signal) => (type === "training-job" ? describeJob(name, signal) : describeComponent(name, signal));

async function describeJob(name, signal) {
  const job = await call("sagemaker", "DescribeTrainingJob", { TrainingJobName: name }, { signal });
  const final = (job.FinalMetricDataList ?? []).map((one) => [one.MetricName, one.Value]);
  const defined = (job.AlgorithmSpecification?.MetricDefinitions ?? []).map((one) => one.Name);
  return makeRun(name, job.TrainingJobArn, job.TrainingJobStatus, {
    parameters: job.HyperParameters ?? {},
    metrics: Object.fromEntries(final),
    curveNames: [...new Set([...final.map(([metric]) => metric), ...defined])],
    start: job.TrainingStartTime ?? job.CreationTime,
    end: job.TrainingEndTime,
  });
}

async function describeComponent(name, signal) {
  const found = await call("sagemaker", "DescribeTrialComponent", { TrialComponentName: name }, { signal });
  const parameters = Object.entries(found.Parameters ?? {}).map(([key, one]) => [key, String(one.NumberValue ?? one.StringValue)]);
  const metrics = (found.Metrics ?? []).map((one) => [one.MetricName, one.Last]);
  return makeRun(name, found.TrialComponentArn, found.Status?.PrimaryStatus ?? "", {
    parameters: Object.fromEntries(parameters),
    metrics: Object.fromEntries(metrics),
    curveNames: [...new Set(metrics.map(([metric]) => metric))],
    start: found.StartTime ?? found.CreationTime,
    end: found.EndTime,
  });
}

function makeRun(name, arn, status, members) {
  const { parameters, metrics, start, end } = members;
  const duration = end && { [DURATION]: (end - start).toFixed(1) };
  return { name, arn, status, ...members, values: { ...parameters, ...duration, ...metrics }, curves: [] };
}

/** Add the points of the metrics, `curves: [{title, times, steps, values}]`, and the last values of running jobs. */
async function addCurves(runs, signal) {
  const wanted = runs.flatMap((run) => run.curveNames.map((title) => ({ run, title })));
  for (let first = 0; first < wanted.length; first += MAX_QUERIES) {
    const part = wanted.slice(first, first + MAX_QUERIES);
    const [byTime, byStep] = await Promise.all(["Timestamp", "IterationNumber"].map((axis) => readPoints(part, axis, signal)));
    part.forEach(({ run, title }, index) => {
      const { XAxisValues: steps, MetricValues: values } = byStep[index];
      if (!values.length) return;
      run.curves.push({ title, steps, values, times: byTime[index].XAxisValues, timeValues: byTime[index].MetricValues });
      run.metrics[title] ??= values.at(-1);
      run.values[title] ??= values.at(-1);
    });
  }
}

async function readPoints(wanted, axis, signal) {
  const queries = wanted.map(({ run, title }) => ({
    MetricName: title,
    ResourceArn: run.arn,
    MetricStat: "Last",
    Period: "IterationNumber",
    XAxisType: axis,
  }));
  const answer = await call("sagemaker-metrics", "BatchGetMetrics", { MetricQueries: queries }, { signal });
  return answer.MetricQueryResults;
}

/** Return one chart per metric, with one curve per run. All curves together have a limited number of points.
 *
 * @param isByStep whether x is the number of the iteration; otherwise, it is the time since the start of the run. */
export function makeCharts(runs, isByStep) {
  const charts = new Map();
  const maxPoints = Math.min(MAX_CURVE_POINTS, Math.ceil(MAX_POINTS / Math.max(runs.length, 1)));
  for (const run of runs) {
    for (const { title, steps, values, times, timeValues } of run.curves) {
      if (!charts.has(title)) charts.set(title, { title, curves: [] });
      const [x, y] = isByStep ? [steps, values] : [times.map((time) => Math.max(0, Math.round(time - run.start))), timeValues];
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
