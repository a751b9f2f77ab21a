// The list of pipelines.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";

const COLUMNS = [
  { title: "Name", render: (row) => html`<a href=${makeHref(["pipelines", row.PipelineName])}>${row.PipelineName}</a>` },
  { title: "Created", render: (row) => html`<${Time} seconds=${row.CreationTime} />` },
  { title: "Last execution", render: (row) => html`<${Time} seconds=${row.LastExecutionTime} />` },
];

export function Page() {
  const usesResource = (change) => change.kind === "pipeline" || change.kind === "pipeline-execution";
  const { data, error } = useQuery(load, [], usesResource);
  return html`
    <${Heading}>Pipelines<//>
    <${Problem} error=${error} />
    ${data && html`<${Table} caption="Pipelines" columns=${COLUMNS} rows=${data} getKey=${(row) => row.PipelineArn}
      empty="No pipeline exists." />`}
  `;
}

async function load(signal) {
  const pipelines = [];
  for (let token = {}; token; ) {
    const members = { SortBy: "CreationTime", SortOrder: "Descending", MaxResults: 100, ...token };
    const answer = await call("sagemaker", "ListPipelines", members, { signal });
    pipelines.push(...answer.PipelineSummaries);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return pipelines;
}
