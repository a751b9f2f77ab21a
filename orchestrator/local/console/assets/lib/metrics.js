// Curves of metrics, from CloudWatch's operations.

import { call } from "./api.js";

const PERIODS = [1, 5, 10, 30, 60, 300, 900, 3600, 86400];
const MAX_POINTS = 2000;
const MAX_QUERIES = 500;
const TOTALS_PERIOD = 60;
const COUNTS = /^Invocations|Errors$/;

/** Return the metrics that have a dimension, as CloudWatch describes them. */
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

/** Return the curves of metrics between two times, `[{metric, times, values}]`, with times in seconds since 1970. A
 * curve has at most `MAX_POINTS` points: a longer time has longer periods. */
export async function readCurves(metrics, start, end, signal) {
  const period = PERIODS.find((seconds) => (end - start) / seconds <= MAX_POINTS) ?? PERIODS.at(-1);
  const series = metrics.map((metric) => ({ metric, stat: COUNTS.test(metric.MetricName) ? "Sum" : "Average" }));
  const curves = await readSeries(series, period, start, end, signal);
  return curves.filter((curve) => curve.times.length);
}

/** Return statistics of metrics between two times, `[{metric, sum, count, maximum}]`. */
export async function readTotals(metrics, start, end, signal) {
  const stats = ["Sum", "SampleCount", "Maximum"];
  const series = metrics.flatMap((metric) => stats.map((stat) => ({ metric, stat })));
  const results = (await readSeries(series, TOTALS_PERIOD, start, end, signal)).map((one) => one.values);
  const add = (values) => values.reduce((sum, value) => sum + value, 0);
  return metrics.map((metric, index) => {
    const [sums, counts, maxima] = results.slice(index * stats.length);
    return { metric, sum: add(sums), count: add(counts), maximum: Math.max(...maxima) };
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
