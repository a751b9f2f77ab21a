// One resource, such as a job: the failure reason first, then times, data, hosts, history and all members.

import { call } from "../lib/api.js";
import { Heading, Problem, Status, Table, Time } from "../lib/components.js";
import { formatDuration, shortenArn } from "../lib/format.js";
import { findKind, isChangeOf, isRunningStatus, parseArn } from "../lib/kinds.js";
import { listStreams } from "../lib/logs.js";
import { isMlflow, MlflowButton } from "../lib/mlflow.js";
import { makeUriHref } from "../lib/objects.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

export function Page({ params }) {
  const kind = findKind(params.type);
  return kind ? html`<${Resource} kind=${kind} id=${params.id} />` : html`<${Heading}>No kind ${params.type}<//>`;
}

function Resource({ kind, id }) {
  const load = (signal) => loadResource(kind, id, signal);
  const { data, error, reload } = useQuery(load, [kind.type, id], (change) => isChangeOf(kind, id, change));
  const status = data?.description[kind.statusMember];
  return html`
    <${Heading}>${data?.name ?? id}<//>
    <${Problem} error=${error} />
    ${data && html`
      <div class="actions">
        <span>${kind.displayName}</span>
        ${status && html`<${Status} kind=${kind} status=${status} />`}
        ${data.streams.length > 0 && html`<a href=${makeHref(["logs", kind.type, id])}>Logs</a>`}
        ${kind.logs && html`<a href=${makeHref(["metrics", kind.type, id])}>Metrics</a>`}
        <a href=${makeHref(["code", kind.type, id])}>As code</a>
        ${kind.type === "endpoint" && html`<a href=${makeHref(["endpoints", id])}>Variants and requests</a>`}
        ${kind.type === "hyper-parameter-tuning-job" && html`<a href=${makeHref(["tuning", id])}>Trials</a>`}
        ${kind.type === "pipeline-execution" && html`<a href=${makeHref(["pipelines", ...data.name.split("/")])}>Steps</a>`}
        ${isMlflow(kind) && html`<${MlflowButton} kind=${kind} id=${id} status=${status} />`}
        <${StopButton} kind=${kind} id=${id} status=${status} onStop=${reload} />
      </div>
      ${data.description.FailureReason && html`<section aria-label="Failure reason" class="failure-reason">${data.description.FailureReason}</section>`}
      <${Summary} kind=${kind} description=${data.description} />
      <${Locations} title="Inputs" locations=${data.locations.filter((location) => !location.isOutput)} />
      <${Locations} title="Outputs" locations=${data.locations.filter((location) => location.isOutput)} />
      <${Hosts} kind=${kind} id=${id} streams=${data.streams} />
      <${History} changes=${data.description.SecondaryStatusTransitions} />
      <h2>All members</h2>
      <pre tabindex="0">${JSON.stringify(data.description, null, 2)}</pre>
    `}
  `;
}

async function loadResource(kind, id, signal) {
  const description = await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal });
  const streams = kind.logs ? await listStreams(kind, id, signal) : [];
  return { description, streams, name: description[kind.nameMember] ?? shortenArn(id), locations: findLocations(description) };
}

/** Return the S3 addresses among the members, with the paths of the members. */
function findLocations(value, path = []) {
  if (typeof value === "string") {
    const isOutput = /Output|Artifacts|Checkpoint/.test(path.join("."));
    return value.startsWith("s3://") ? [{ path: path.join("."), uri: value, isOutput }] : [];
  }
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([name, inner]) => findLocations(inner, [...path, name]));
}

function StopButton({ kind, id, status, onStop }) {
  const [error, setError] = useState(null);
  const operation = kind.operations.Stop;
  if (!operation) return null; // kinds without a life cycle, such as models, have no operation Stop
  const { transitionalStatuses, activeStatuses } = kind.lifecycle;
  // a resource can be stopped in its first transitional status, such as InProgress, but not in others, such as Stopping
  const otherTransitionalStatuses = transitionalStatuses.slice(1);
  if (!activeStatuses.includes(status) || otherTransitionalStatuses.includes(status)) return null;
  const stop = () => call("sagemaker", operation, makeStopRequest(kind, id)).then(onStop, setError);
  return html`<button onClick=${stop}>Stop</button><${Problem} error=${error} />`;
}

/** Return the members of a Stop request. For parts of other resources, such as executions, a token is required. */
function makeStopRequest(kind, id) {
  const token = kind.parentType && { ClientRequestToken: crypto.randomUUID() };
  return { [kind.identifierMember]: id, ...token };
}

function Summary({ kind, description }) {
  const { startMember, endMember } = kind.lifecycle ?? {};
  const start = description[startMember] ?? description.CreationTime;
  const status = description[kind.statusMember];
  const end = description[endMember] ?? (kind.lifecycle && isRunningStatus(kind, status) ? Date.now() / 1000 : description.LastModifiedTime);
  const mlflow = description.MlflowConfig ?? description.MLflowConfig; // the members of a job, and of an execution
  const facts = [
    ["ARN", description[kind.arnMember]],
    ["Created", html`<${Time} seconds=${description.CreationTime} />`],
    ["Duration", formatDuration(end - start)],
    ["Secondary status", description.SecondaryStatus],
    ["Exit message", description.ExitMessage],
    ["Billable time", description.BillableTimeInSeconds && formatDuration(description.BillableTimeInSeconds)],
    ["MLflow server", mlflow && html`<${ResourceLink} arn=${mlflow.MlflowResourceArn} />`],
    ["Created by", description.TuningJobArn && html`<${ResourceLink} arn=${description.TuningJobArn} />`],
  ];
  return html`
    <h2>Summary</h2>
    <dl>${facts.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
  `;
}

function ResourceLink({ arn }) {
  const resource = parseArn(arn);
  return resource ? html`<a href=${makeHref(["jobs", resource.kind.type, resource.id])}>${arn}</a>` : arn;
}

const LOCATION_COLUMNS = [
  { title: "Member", render: (row) => row.path },
  { title: "Address", render: (row) => html`<a href=${makeUriHref(row.uri)}>${row.uri}</a>` },
];

const Locations = ({ title, locations }) =>
  locations.length === 0 ? null : html`
    <h2>${title}</h2>
    <${Table} caption=${title} columns=${LOCATION_COLUMNS} rows=${locations} getKey=${(row) => row.path} />
  `;

function Hosts({ kind, id, streams }) {
  const columns = [
    { title: "Host", render: (row) => html`<a href=${makeHref(["logs", kind.type, id], { stream: row.name })}>${row.host}</a>` },
    { title: "First line", render: (row) => html`<${Time} seconds=${row.firstTime} />` },
    { title: "Last line", render: (row) => html`<${Time} seconds=${row.lastTime} />` },
  ];
  return streams.length === 0 ? null : html`
    <h2>Hosts</h2>
    <${Table} caption="Hosts" columns=${columns} rows=${streams} getKey=${(row) => row.name} />
  `;
}

const HISTORY_COLUMNS = [
  { title: "Status", render: (row) => row.Status },
  { title: "From", render: (row) => html`<${Time} seconds=${row.StartTime} />` },
  { title: "Duration", isNumber: true, render: (row) => formatDuration((row.EndTime ?? Date.now() / 1000) - row.StartTime) },
  { title: "Message", render: (row) => row.StatusMessage },
];

const History = ({ changes }) =>
  !changes?.length ? null : html`
    <h2>Status history</h2>
    <${Table} caption="Status history" columns=${HISTORY_COLUMNS} rows=${changes}
      getKey=${(row) => `${row.Status}${row.StartTime}`} />
  `;
