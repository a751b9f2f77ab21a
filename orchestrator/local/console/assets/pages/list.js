// The list of jobs, endpoints, executions and other resources that run.

import { useNow } from "../lib/clock.js";
import { Field, Heading, Problem, Select, Status, Table, Time } from "../lib/components.js";
import { formatDuration } from "../lib/format.js";
import { isRunningStatus, listLifecycleKinds } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { listResources } from "../lib/resources.js";
import { makeHref, replaceQuery } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

const PAGE_SIZE = 100;

const COLUMNS = [
  { title: "Name", render: (row) => html`<a href=${makeHref(["jobs", row.kind.type, row.id])}>${row.name}</a>` },
  { title: "Kind", render: (row) => row.kind.title },
  { title: "Status", render: (row) => html`<${Status} kind=${row.kind} status=${row.status} />` },
  { title: "Created", render: (row) => html`<${Time} seconds=${row.created} />` },
  { title: "Duration", isNumber: true, render: (row) => html`<${Duration} row=${row} />` },
];

function Duration({ row }) {
  const isRunning = !row.end && isRunningStatus(row.kind, row.status);
  const now = useNow(isRunning);
  const end = row.end ?? (isRunning ? now : row.item.LastModifiedTime);
  return formatDuration(end - row.created);
}

export function Page({ query }) {
  const { kind: type = "", status = "", name = "" } = query;
  const [count, setCount] = useState(PAGE_SIZE);
  const kinds = listLifecycleKinds().filter((kind) => !type || kind.type === type);
  const types = new Set(kinds.map((kind) => kind.type));
  const load = (signal) => listResources(kinds, { status, name }, count, signal);
  const { data, error, isLoading } = useQuery(load, [type, status, name, count], (change) => types.has(change.kind));
  const changeQuery = (changes) => replaceQuery({ ...query, ...changes });
  return html`
    <${Heading}>Jobs, endpoints and executions<//>
    <${Filters} kinds=${kinds} type=${type} status=${status} name=${name} changeQuery=${changeQuery} />
    <${Problem} error=${error} />
    <p role="status" class="hint">${describeCount(data, isLoading)}</p>
    ${data && html`
      <${Table} caption="Jobs, endpoints and executions" columns=${COLUMNS} rows=${data.rows}
        getKey=${(row) => row.arn} empty="No resource matches." />
    `}
    ${data?.hasMore && html`<button onClick=${() => setCount(count + PAGE_SIZE)}>Show more</button>`}
  `;
}

function describeCount(data, isLoading) {
  if (!data) return isLoading ? "Loading…" : "";
  return data.hasMore ? `The newest ${data.rows.length} are shown.` : `${data.rows.length} found.`;
}

function Filters({ kinds, type, status, name, changeQuery }) {
  const statuses = [...new Set(kinds.flatMap((kind) => kind.lifecycle.statuses))].sort();
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Field} label="Name contains">
        <input type="search" value=${name} onInput=${(event) => changeQuery({ name: event.target.value })} />
      <//>
      <${Select} label="Kind" value=${type} onChange=${(kind) => changeQuery({ kind, status: "" })}
        options=${[["", "all"], ...listLifecycleKinds().map((kind) => [kind.type, kind.displayName])]} />
      <${Select} label="Status" value=${status} onChange=${(value) => changeQuery({ status: value })}
        options=${[["", "all"], ...statuses.map((item) => [item, item])]} />
    </form>
  `;
}
