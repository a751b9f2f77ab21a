// One endpoint: its variants and components with their traffic, latency and errors, and a form to send a request.

import { Chart } from "../lib/chart.js";
import { Heading, Problem, Status, Table } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { isMetricOf } from "../lib/metrics.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { loadEndpoint } from "./endpoint/data.js";
import { RequestForm } from "./endpoint/request.js";
import { loadTraffic } from "./endpoint/traffic.js";

export function Page({ params: { id } }) {
  const kind = findKind("endpoint");
  const usesResource = (change) => (change.kind === "endpoint" && change.name === id) || change.kind === "inference-component";
  const { data, error } = useQuery((signal) => loadEndpoint(id, signal), [id], usesResource);
  const status = data?.endpoint.EndpointStatus;
  return html`
    <${Heading}>${id}<//>
    <${Problem} error=${error} />
    ${data && html`
      <div class="actions">
        <span>endpoint</span>
        <${Status} kind=${kind} status=${status} />
        <a href=${makeHref(["jobs", kind.type, id])}>Description</a>
        <a href=${makeHref(["logs", kind.type, id])}>Logs</a>
        <a href=${makeHref(["metrics", kind.type, id])}>Metrics</a>
        <a href=${makeHref(["code", kind.type, id])}>As code</a>
      </div>
      ${data.endpoint.FailureReason && html`
        <section aria-label="Failure reason" class="failure-reason">${data.endpoint.FailureReason}</section>
      `}
      <p>Configuration: <a href=${makeHref(["jobs", "endpoint-config", data.endpoint.EndpointConfigName])}>${data.endpoint.EndpointConfigName}</a></p>
      <h2>Variants</h2>
      <${Table} caption="Variants" columns=${VARIANT_COLUMNS} rows=${data.variants} getKey=${(row) => row.name} />
      <${Components} components=${data.components} />
      <${Traffic} data=${data} />
      <${RequestForm} endpoint=${id} variants=${data.variants} components=${data.components}
        isAsynchronous=${data.isAsynchronous} />
    `}
  `;
}

const VARIANT_COLUMNS = [
  { title: "Name", render: (row) => row.name },
  { title: "Kind", render: (row) => row.type },
  { title: "Model", render: (row) => row.model && html`<a href=${makeHref(["jobs", "model", row.model])}>${row.model}</a>` },
  { title: "Capacity", render: (row) => row.capacity },
  { title: "Instances", isNumber: true, render: (row) => row.instances },
  { title: "Weight", isNumber: true, render: (row) => row.weight },
  { title: "Status", render: (row) => row.status },
];

const COMPONENT_COLUMNS = [
  { title: "Name", render: (row) => html`<a href=${makeHref(["jobs", "inference-component", row.name])}>${row.name}</a>` },
  { title: "Variant", render: (row) => row.variant },
  { title: "Copies", isNumber: true, render: (row) => row.copies },
  {
    title: "Status",
    render: (row) => html`<${Status} kind=${findKind("inference-component")} status=${row.status} />${" "}${row.failure}`,
  },
];

const Components = ({ components }) =>
  components.length === 0 ? null : html`
    <h2>Inference components</h2>
    <${Table} caption="Inference components" columns=${COMPONENT_COLUMNS} rows=${components} getKey=${(row) => row.name} />
  `;

const TRAFFIC_COLUMNS = [
  { title: "Variant or component", render: (row) => row.name },
  { title: "Requests", isNumber: true, render: (row) => row.requests },
  { title: "4XX errors", isNumber: true, render: (row) => row.clientErrors },
  { title: "5XX errors", isNumber: true, render: (row) => row.serverErrors },
  { title: "Average latency", isNumber: true, render: (row) => formatLatency(row.latency) },
  { title: "Longest latency", isNumber: true, render: (row) => formatLatency(row.maxLatency) },
];

const formatLatency = (microseconds) => (microseconds >= 0 ? `${(microseconds / 1000).toPrecision(3)} ms` : "");

function Traffic({ data }) {
  const name = data.endpoint.EndpointName;
  const names = [name, ...data.components.map((component) => component.name)];
  const load = (signal) => loadTraffic(name, data.components, signal);
  const usesMetric = (dimensions) => names.some((name) => isMetricOf(name, dimensions));
  const { data: traffic, error } = useQuery(load, [names.join()], null, usesMetric);
  return html`
    <h2>Requests in the last hour</h2>
    <${Problem} error=${error} />
    ${traffic && html`
      <${Table} caption="Requests in the last hour" columns=${TRAFFIC_COLUMNS} rows=${traffic.rows}
        getKey=${(row) => row.name} empty="No request was received." />
      <div class="charts">
        ${traffic.charts.map((chart) => html`<${Chart} key=${chart.title} ...${chart} isTime=${true} />`)}
      </div>
    `}
  `;
}
