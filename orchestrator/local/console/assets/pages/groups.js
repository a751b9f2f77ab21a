// The list of model package groups.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";

const COLUMNS = [
  {
    title: "Name",
    render: ({ ModelPackageGroupName: name }) => html`<a href=${makeHref(["registry", name])}>${name}</a>`,
  },
  { title: "Description", render: (row) => row.ModelPackageGroupDescription },
  { title: "Created", render: (row) => html`<${Time} seconds=${row.CreationTime} />` },
];

export function Page() {
  const { data, error } = useQuery(load, [], (change) => change.kind === "model-package-group");
  return html`
    <${Heading}>Model package groups<//>
    <${Problem} error=${error} />
    ${data && html`<${Table} caption="Model package groups" columns=${COLUMNS} rows=${data}
      getKey=${(row) => row.ModelPackageGroupArn} empty="No group exists." />`}
  `;
}

async function load(signal) {
  const groups = [];
  for (let token = {}; token; ) {
    const members = { SortBy: "CreationTime", SortOrder: "Descending", MaxResults: 100, ...token };
    const answer = await call("sagemaker", "ListModelPackageGroups", members, { signal });
    groups.push(...answer.ModelPackageGroupSummaryList);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return groups;
}
