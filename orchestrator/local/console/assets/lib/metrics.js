// Curves of metrics, from CloudWatch's operations.

import { call } from "./api.js";

const PERIODS = [1, 5, 10, 30, 60, 300, 900, 3600, 86400];
const MAX_POINTS = 2000;
const MAX_QUERIES = 500;
const MINUTE = 60;
const LATE_SECONDS = 60; // maximum delay of points; points with a longer delay appear when the page is opened again
const COUNT_METRIC_PATTERN = /^Invocations|Errors$/;

/** Return the metrics that have the dimension `name` with this value, but at most MAX_QUERIES, as CloudWatch describes them. */
export async function listMetrics(name, value, signal) {
  const metrics = [];
  for (let token = {}; token; ) {
    const members = { Dimensions: [{ Name: name, Value: value }], ...token };
    const answer = await call("cloudwatch", "ListMetrics", members, { signal });
    metrics.push(...answer.Metrics);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return metrics.slice(0, MAX_QUERIES);
}

/** Return whether new points with some dimensions, such as `{Host: "my-job/algo-1"}`, belong to a resource. */
export const isMetricOf = (id, dimensions) =>
  Object.values(dimensions).some((value) => value === id || value.startsWith(`${id}/`));

/** Return the curves of metrics between two times, `[{metric, times, values}]`, with times in seconds since 1970. A
 * curve has at most `MAX_POINTS` points, so the points of a longer time have longer periods. */
export const readCurves = (metrics, start, end, signal) => new CurveReader().read(metrics, start, end, signal);

/** Reads curves repeatedly. For a known curve, it requests only the last periods: only these may have new points. */
export class CurveReader {
  constructor() {
    this.reset(null, 0);
  }

  reset(period, start) {
    Object.assign(this, { period, start, end: start, curves: new Map() });
  }

  /** Return curves as `readCurves` does. */
  async read(metrics, start, end, signal) {
    const period = PERIODS.find((seconds) => (end - start) / seconds <= MAX_POINTS) ?? PERIODS.at(-1);
    const roundedStart = Math.floor(start / MINUTE) * MINUTE; // CloudWatch rounds times down in the same way
    if (period !== this.period || roundedStart !== this.start) this.reset(period, roundedStart);
    const newStart = roundedStart + Math.max(0, Math.floor((this.end - LATE_SECONDS - roundedStart) / period)) * period;
    const isKnown = (metric) => this.curves.has(JSON.stringify(metric));
    await this.requestPoints(metrics.filter(isKnown), newStart, end, signal);
    await this.requestPoints(metrics.filter((metric) => !isKnown(metric)), roundedStart, end, signal);
    this.end = end;
    return metrics.map((metric) => this.curves.get(JSON.stringify(metric))).filter((curve) => curve?.times.length);
  }

  /** Request the points between two times. They replace all points of the curves from `start` on. */
  async requestPoints(metrics, start, end, signal) {
    const series = metrics.map((metric) => ({ metric, stat: COUNT_METRIC_PATTERN.test(metric.MetricName) ? "Sum" : "Average" }));
    for (const { metric, times, values } of await readSeries(series, this.period, start, end, signal)) {
      const oldCurve = this.curves.get(JSON.stringify(metric)) ?? { times: [], values: [] };
      const firstReplacedIndex = oldCurve.times.findIndex((time) => time >= start);
      const cut = (list) => (firstReplacedIndex < 0 ? list : list.slice(0, firstReplacedIndex));
      const curve = {
        metric,
        times: [...cut(oldCurve.times), ...times],
        values: [...cut(oldCurve.values), ...values],
      };
      this.curves.set(JSON.stringify(metric), curve);
    }
  }
}

/** Return statistics of metrics between two times, `[{metric, sum, count, maximum}]`. */
export async function readTotals(metrics, start, end, signal) {
  const stats = ["Sum", "SampleCount", "Maximum"];
  const maxMetrics = Math.floor(MAX_QUERIES / stats.length);
  if (metrics.length > maxMetrics) {
    const first = await readTotals(metrics.slice(0, maxMetrics), start, end, signal);
    return [...first, ...(await readTotals(metrics.slice(maxMetrics), start, end, signal))];
  }
  const series = metrics.flatMap((metric) => stats.map((stat) => ({ metric, stat })));
  const results = (await readSeries(series, MINUTE, start, end, signal)).map((result) => result.values);
  const addUp = (values) => values.reduce((sum, value) => sum + value, 0);
  return metrics.map((metric, index) => {
    const [sums, counts, maxima] = results.slice(index * stats.length);
    return { metric, sum: addUp(sums), count: addUp(counts), maximum: Math.max(...maxima) };
  });
}

async function readSeries(series, period, start, end, signal) {
  const curves = series.map(({ metric }) => ({ metric, times: [], values: [] }));
  if (!series.length) return curves;
  const queries = series.slice(0, MAX_QUERIES).map(({ metric, stat }, index) => ({
    Id: `m${index}`,
    MetricStat: { Metric: metric, Period: period, Stat: stat },
  }));
  const times = { StartTime: Math.floor(start), EndTime: Math.ceil(end), ScanBy: "TimestampAscending" };
  for (let token = {}; token; ) {
    const members = { MetricDataQueries: queries, ...times, ...token };
    const answer = await call("cloudwatch", "GetMetricData", members, { signal });
    for (const result of answer.MetricDataResults) {
      curves[Number(result.Id.slice(1))].times.push(...result.Timestamps);
      curves[Number(result.Id.slice(1))].values.push(...result.Values);
    }
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return curves;
}
