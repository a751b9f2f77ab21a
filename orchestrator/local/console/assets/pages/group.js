// One model package group: its versions, and the version that the address names.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { listNumericMetrics, loadMetrics, makeNumericMetrics } from "./registry/metrics.js";
import { Approval, Version } from "./registry/version.js";

const MAX_ROWS = 100;
const MAX_VERSIONS_WITH_METRICS = 20; // the newest versions whose metrics are read, besides the chosen one
const MAX_METRICS = 12;

export function Page({ params: { group }, query }) {
  const load = (signal) => loadGroup(group, query.version, signal);
  const { data, error, reload } = useQuery(load, [group, query.version], (change) => change.kind.startsWith("model-package"));
  return html`
    <${Heading}>${group}<//>
    <${Problem} error=${error} />
    ${data && html`
      <h2>Versions</h2>
      <${Table} caption="Versions" columns=${makeColumns(group, listNumericMetrics(data.versions, MAX_METRICS))} rows=${data.versions}
        getKey=${(row) => row.ModelPackageArn} empty="The group has no version." />
      ${data.version && html`<${Version} key=${data.version.ModelPackageArn} version=${data.version}
        metrics=${data.version.metrics} reload=${reload} />`}
    `}
  `;
}

/** Return the newest versions of a group, and the chosen version, which is the newest version by default. The chosen
 * version and the newest MAX_VERSIONS_WITH_METRICS versions have metrics.
 *
 * @param number the number of the chosen version, as text. */
async function loadGroup(group, number, signal) {
  const members = { ModelPackageGroupName: group, SortBy: "CreationTime", SortOrder: "Descending", MaxResults: MAX_ROWS };
  const { ModelPackageSummaryList: versions } = await call("sagemaker", "ListModelPackages", members, { signal });
  const chosenVersion = versions.find((version) => String(version.ModelPackageVersion) === number) ?? versions[0];
  const describedVersions = await Promise.all(
    versions.map((version, index) => {
      const hasMetrics = index < MAX_VERSIONS_WITH_METRICS || version === chosenVersion;
      return hasMetrics ? describe(version, signal) : { ...version, metrics: [] };
    }),
  );
  return { versions: describedVersions, version: describedVersions[versions.indexOf(chosenVersion)] };
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
  ...metrics.map((name) => ({ title: name, isNumber: true, render: (row) => makeNumericMetrics(row.metrics).get(name) })),
  { title: "Description", render: (row) => row.ModelPackageDescription },
];
