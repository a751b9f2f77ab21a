// The list of buckets.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";

const COLUMNS = [
  { title: "Name", render: (row) => html`<a href=${makeHref(["buckets", row.Name])}>${row.Name}</a>` },
  { title: "Created", render: (row) => html`<${Time} seconds=${row.CreationDate} />` },
];

export function Page() {
  const { data, error } = useQuery((signal) => call("s3", "ListBuckets", {}, { signal }), []);
  return html`
    <${Heading}>Buckets<//>
    <${Problem} error=${error} />
    ${data && html`<${Table} caption="Buckets" columns=${COLUMNS} rows=${data.Buckets} getKey=${(row) => row.Name}
      empty="No bucket exists." />`}
  `;
}
