// One model package group: its versions, and the version that is chosen in the address.

import { call } from "../lib/api.js";
import { Heading, Problem, Table, Time } from "../lib/components.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { Approval, Version } from "./registry/version.js";

const MAX_ROWS = 100;

export function Page({ params: { group }, query }) {
  const load = (signal) => loadGroup(group, query.version, signal);
  const { data, error, reload } = useQuery(load, [group, query.version], (one) => one.kind.startsWith("model-package"));
  return html`
    <${Heading}>${group}<//>
    <${Problem} error=${error} />
    ${data && html`
      <h2>Versions</h2>
      <${Table} caption="Versions" columns=${makeColumns(group)} rows=${data.versions}
        getKey=${(row) => row.ModelPackageArn} empty="The group has no version." />
      ${data.version && html`<${Version} key=${data.version.ModelPackageArn} version=${data.version} reload=${reload} />`}
    `}
  `;
}

/** Return the newest versions of a group, and the description of the chosen version or the newest one. */
async function loadGroup(group, number, signal) {
  const members = { ModelPackageGroupName: group, SortBy: "CreationTime", SortOrder: "Descending", MaxResults: MAX_ROWS };
  const { ModelPackageSummaryList: versions } = await call("sagemaker", "ListModelPackages", members, { signal });
  const chosen = versions.find((one) => String(one.ModelPackageVersion) === number) ?? versions[0];
  const request = chosen && { ModelPackageName: chosen.ModelPackageArn };
  return { versions, version: chosen && (await call("sagemaker", "DescribeModelPackage", request, { signal })) };
}

const makeColumns = (group) => [
  {
    title: "Version",
    render: ({ ModelPackageVersion: number }) =>
      html`<a href=${makeHref(["registry", group], { version: String(number) })}>Version ${number}</a>`,
  },
  { title: "Approval", render: (row) => html`<${Approval} status=${row.ModelApprovalStatus} />` },
  { title: "Registered", render: (row) => html`<${Time} seconds=${row.CreationTime} />` },
  { title: "Description", render: (row) => row.ModelPackageDescription },
];
