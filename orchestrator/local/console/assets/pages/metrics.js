// The curves of a job or an endpoint: its own metrics, and the resources that its hosts use.

import { call } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { ChartOptions, readChartOptions } from "../lib/chart_options.js";
import { Heading, Problem } from "../lib/components.js";
import { findKind, isChangeOf, isRunningStatus } from "../lib/kinds.js";
import { listStreams } from "../lib/logs.js";
import { CurveReader, isMetricOf, listMetrics } from "../lib/metrics.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useRef } from "../lib/ui.js";

const MAX_HOSTS = 16;

export function Page({ params, query }) {
  const kind = findKind(params.type);
  return kind?.lifecycle
    ? html`<${Metrics} kind=${kind} id=${params.id} query=${query} />`
    : html`<${Heading}>No metrics of ${params.type}<//>`;
}

function Metrics({ kind, id, query }) {
  const usesResource = (change) => isChangeOf(kind, id, change);
  const reader = useRef(new CurveReader());
  const read = (signal) => load(kind, id, reader.current, signal);
  const { data, error } = useQuery(read, [kind.type, id], usesResource, (dimensions) => isMetricOf(id, dimensions));
  return html`
    <${Heading}>Metrics of <a href=${makeHref(["jobs", kind.type, id])}>${id}</a><//>
    <${Problem} error=${error} />
    <${ChartOptions} query=${query} />
    ${data && !data.charts.length && html`<p role="status">No metric has been recorded.</p>`}
    <div class="charts">
      ${data?.charts.map((chart) => html`<${Chart} key=${chart.title} ...${chart} isTime=${true} ...${readChartOptions(query)} />`)}
    </div>
  `;
}

async function load(kind, id, reader, signal) {
  const description = await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal });
  const hosts = await listHosts(kind, id, signal);
  const dimensions = [[kind.nameMember, id], ...hosts.map((host) => ["Host", `${id}/${host}`])];
  const metrics = await Promise.all(dimensions.map(([name, value]) => listMetrics(name, value, signal)));
  const isRunning = isRunningStatus(kind, description[kind.statusMember]);
  const end = isRunning ? Date.now() / 1000 + 1 : description.LastModifiedTime + 60;
  const curves = await reader.read(metrics.flat(), description.CreationTime - 1, end, signal);
  return { charts: groupByName(curves, id) };
}

async function listHosts(kind, id, signal) {
  const streams = kind.logs ? await listStreams(kind, id, signal) : [];
  return [...new Set(streams.map((stream) => stream.host.match(/algo-\d+/)?.[0]).filter(Boolean))].slice(0, MAX_HOSTS);
}

/** Return one chart per name of a metric, with one curve per host or variant. */
function groupByName(curves, id) {
  const charts = new Map();
  for (const { metric, times, values } of curves) {
    const title = metric.MetricName;
    const dimension = metric.Dimensions.find((item) => ["Host", "VariantName"].includes(item.Name));
    const label = dimension ? dimension.Value.replace(`${id}/`, "") : title;
    if (!charts.has(title)) charts.set(title, { title, curves: [] });
    charts.get(title).curves.push({ label, x: times, y: values });
  }
  return [...charts.values()];
}
