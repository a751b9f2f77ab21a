// Curves of metrics, from CloudWatch's operations.

import { call } from "./api.js";

const PERIODS = [1, 5, 10, 30, 60, 300, 900, 3600, 86400];
const MAX_POINTS = 2000;
const MAX_QUERIES = 500;
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
  if (!metrics.length) return [];
  const period = PERIODS.find((seconds) => (end - start) / seconds <= MAX_POINTS) ?? PERIODS.at(-1);
  const queries = metrics.map((metric, index) => {
    const stat = COUNTS.test(metric.MetricName) ? "Sum" : "Average";
    return { Id: `m${index}`, MetricStat: { Metric: metric, Period: period, Stat: stat } };
  });
  const curves = metrics.map((metric) => ({ metric, times: [], values: [] }));
  for (let token = {}; token; ) {
    const times = { StartTime: Math.floor(start), EndTime: Math.ceil(end), ScanBy: "TimestampAscending" };
    const members = { MetricDataQueries: queries, ...times, ...token };
    const answer = await call("cloudwatch", "GetMetricData", members, { signal });
    for (const result of answer.MetricDataResults) {
      curves[Number(result.Id.slice(1))].times.push(...result.Timestamps);
      curves[Number(result.Id.slice(1))].values.push(...result.Values);
    }
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return curves.filter((curve) => curve.times.length);
}
