// The numbers of requests, the errors and the latencies of an endpoint, from CloudWatch's metrics.

import { listMetrics, readCurves, readTotals } from "../../lib/metrics.js";

const TRAFFIC_SECONDS = 3600;
const CHART_TITLES = { ModelLatency: "Latency of the model (ms)", Invocations: "Requests" };
const ROW_MEMBERS = {
  Invocations: "requests",
  Invocation4XXErrors: "clientErrors",
  Invocation5XXErrors: "serverErrors",
  ModelLatency: "latency",
};
const LABEL_DIMENSIONS = ["InferenceComponentName", "VariantName"];

/** Return `{rows, charts}` for the variants and the components of an endpoint in the last hour. */
export async function loadTraffic(endpoint, components, signal) {
  const dimensions = [["EndpointName", endpoint], ...components.map((component) => ["InferenceComponentName", component.name])];
  const allMetrics = (await Promise.all(dimensions.map(([name, value]) => listMetrics(name, value, signal)))).flat();
  const metrics = allMetrics.filter((metric) => ROW_MEMBERS[metric.MetricName] && getLabel(metric));
  const end = Date.now() / 1000 + 1;
  const totals = await readTotals(metrics, end - TRAFFIC_SECONDS, end, signal);
  const curves = await readCurves(metrics.filter((metric) => CHART_TITLES[metric.MetricName]), end - TRAFFIC_SECONDS, end, signal);
  return { rows: makeRows(totals), charts: makeCharts(curves) };
}

const getLabel = (metric) =>
  LABEL_DIMENSIONS.map((name) => metric.Dimensions.find((dimension) => dimension.Name === name)?.Value).find(Boolean);

function makeRows(totals) {
  const rows = new Map();
  for (const { metric, sum, count, maximum } of totals.filter((total) => total.count)) {
    const name = getLabel(metric);
    const isLatency = metric.MetricName === "ModelLatency";
    const values = { [ROW_MEMBERS[metric.MetricName]]: isLatency ? sum / count : sum, ...(isLatency && { maxLatency: maximum }) };
    rows.set(name, { ...rows.get(name), name, ...values });
  }
  return [...rows.values()];
}

function makeCharts(curves) {
  return Object.entries(CHART_TITLES)
    .map(([metricName, title]) => ({ title, curves: curves.filter((curve) => curve.metric.MetricName === metricName) }))
    .filter((chart) => chart.curves.length)
    .map(({ title, curves: metricCurves }) => ({ title, curves: metricCurves.map((curve) => makeCurve(curve)) }));
}

function makeCurve({ metric, times, values }) {
  const factor = metric.MetricName === "ModelLatency" ? 1 / 1000 : 1;
  return { label: getLabel(metric), x: times, y: values.map((value) => value * factor) };
}
