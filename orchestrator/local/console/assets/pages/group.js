// One model package group: its versions, and the version that is chosen in the address.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { listNumbers, loadMetrics, makeNumbers } from "./registry/metrics.js";
import { Approval, Version } from "./registry/version.js";

const MAX_ROWS = 100;
const MAX_COMPARED = 20; // versions whose metrics are read
const MAX_METRICS = 12;

export function Page({ params: { group }, query }) {
  const load = (signal) => loadGroup(group, query.version, signal);
  const { data, error, reload } = useQuery(load, [group, query.version], (one) => one.kind.startsWith("model-package"));
  return html`
    <${Heading}>${group}<//>
    <${Problem} error=${error} />
    ${data && html`
      <h2>Versions</h2>
      <${Table} caption="Versions" columns=${makeColumns(group, listNumbers(data.versions, MAX_METRICS))} rows=${data.versions}
        getKey=${(row) => row.ModelPackageArn} empty="The group has no version." />
      ${data.version && html`<${Version} key=${data.version.ModelPackageArn} version=${data.version}
        metrics=${data.version.metrics} reload=${reload} />`}
    `}
  `;
}

/** Return the newest versions of a group with their metrics, and the description of the chosen or the newest version. */
async function loadGroup(group, number, signal) {
  const members = { ModelPackageGroupName: group, SortBy: "CreationTime", SortOrder: "Descending", MaxResults: MAX_ROWS };
  const { ModelPackageSummaryList: found } = await call("sagemaker", "ListModelPackages", members, { signal });
  const chosen = found.find((one) => String(one.ModelPackageVersion) === number) ?? found[0];
  const described = await Promise.all(
    found.map((one, index) => (index < MAX_COMPARED || one === chosen ? describe(one, signal) : { ...one, metrics: [] })),
  );
  return { versions: described, version: described[found.indexOf(chosen)] };
}

async function describe({ ModelPackageArn: arn }, signal) {
  const version = await call("sagemaker", "DescribeModelPackage", { ModelPackageName: arn }, { signal });
  return { ...version, metrics: await loadMetrics(version, signal) };
}

const makeColumns = (group, metrics) => [
  {
    title: "Version",
    render: ({ ModelPackageVersion: number }) =>
      html`<a href=${makeHref(["registry", group], { version: String(number) })}>Version ${number}</a>`,
  },
  { title: "Approval", render: (row) => html`<${Approval} status=${row.ModelApprovalStatus} />` },
  { title: "Registered", render: (row) => html`<${Time} seconds=${row.CreationTime} />` },
  ...metrics.map((name) => ({ title: name, isNumber: true, render: (row) => makeNumbers(row.metrics).get(name) })),
  { title: "Description", render: (row) => row.ModelPackageDescription },
];
