// The list of endpoints.

import { Heading, Problem, Status, Table, Time } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { listResources } from "../lib/resources.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";

const MAX_ROWS = 500;

const COLUMNS = [
  { title: "Name", render: (row) => html`<a href=${makeHref(["endpoints", row.id])}>${row.name}</a>` },
  { title: "Status", render: (row) => html`<${Status} kind=${row.kind} status=${row.status} />` },
  { title: "Created", render: (row) => html`<${Time} seconds=${row.created} />` },
  { title: "Last change", render: (row) => html`<${Time} seconds=${row.item.LastModifiedTime} />` },
];

export function Page() {
  const kind = findKind("endpoint");
  const load = (signal) => listResources([kind], { name: "", status: "" }, MAX_ROWS, signal);
  const { data, error } = useQuery(load, [], (one) => one.kind === kind.type);
  return html`
    <${Heading}>Endpoints<//>
    <${Problem} error=${error} />
    ${data?.hasMore && html`<p class="hint">The newest ${MAX_ROWS} are shown.</p>`}
    ${data && html`<${Table} caption="Endpoints" columns=${COLUMNS} rows=${data.rows} getKey=${(row) => row.arn}
      empty="No endpoint exists." />`}
  `;
}
