// A page with the list of all resources of one kind.

import { Heading, Problem, Status, Table, Time } from "./components.js";
import { findKind } from "./kinds.js";
import { useQuery } from "./query.js";
import { listResources } from "./resources.js";
import { makeHref } from "./router.js";
import { html } from "./ui.js";

const MAX_ROWS = 500;

/** @param path the first part of the addresses of the resources' pages. */
export function ResourceList({ type, title, path }) {
  const kind = findKind(type);
  const load = (signal) => listResources([kind], { name: "", status: "" }, MAX_ROWS, signal);
  const { data, error } = useQuery(load, [type], (change) => change.kind === type);
  const columns = [
    { title: "Name", render: (row) => html`<a href=${makeHref([path, row.id])}>${row.name}</a>` },
    { title: "Status", render: (row) => html`<${Status} kind=${row.kind} status=${row.status} />` },
    { title: "Created", render: (row) => html`<${Time} seconds=${row.created} />` },
    { title: "Last change", render: (row) => html`<${Time} seconds=${row.item.LastModifiedTime} />` },
  ];
  return html`
    <${Heading}>${title}<//>
    <${Problem} error=${error} />
    ${data?.hasMore && html`<p class="hint">The newest ${MAX_ROWS} are shown.</p>`}
    ${data && html`<${Table} caption=${title} columns=${columns} rows=${data.rows} getKey=${(row) => row.arn}
      empty=${`No ${kind.displayName} exists.`} />`}
  `;
}
