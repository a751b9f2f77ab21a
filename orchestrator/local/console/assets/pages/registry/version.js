// One version of a model: its containers, metrics and metadata, its approval, and a form that deploys it.

import { call } from "../../lib/api.js";
import { Problem, Table } from "../../lib/components.js";
import { makeUriHref } from "../../lib/objects.js";
import { makeHref } from "../../lib/router.js";
import { html, useState } from "../../lib/ui.js";
import { DeployForm } from "./deploy_form.js";

const APPROVAL_CLASSES = { Approved: "success", Rejected: "failure" };

export const Approval = ({ status }) => html`<span class=${`status ${APPROVAL_CLASSES[status] ?? "neutral"}`}>${status}</span>`;

export function Version({ version, metrics, reload }) {
  const [error, setError] = useState(null);
  const changeApproval = (status) => {
    const members = { ModelPackageArn: version.ModelPackageArn, ModelApprovalStatus: status };
    call("sagemaker", "UpdateModelPackage", members).then(() => setError(null) ?? reload(), setError);
  };
  const status = version.ModelApprovalStatus;
  return html`
    <section aria-labelledby="version">
      <h2 id="version">Version ${version.ModelPackageVersion}</h2>
      <div class="actions">
        <${Approval} status=${status} />
        ${status !== "Approved" && html`<button onClick=${() => changeApproval("Approved")}>Approve</button>`}
        ${status !== "Rejected" && html`<button onClick=${() => changeApproval("Rejected")}>Reject</button>`}
        <a href=${makeHref(["code", "model-package", version.ModelPackageArn])}>As code</a>
      </div>
      <${Problem} error=${error} />
      <${Table} caption="Containers" columns=${CONTAINER_COLUMNS} rows=${version.InferenceSpecification?.Containers ?? []}
        getKey=${(row) => row.ContainerHostname ?? row.Image} />
      <${Metrics} metrics=${metrics} />
      <${Facts} title="Metadata" facts=${Object.entries(version.CustomerMetadataProperties ?? {})} />
      ${status === "Approved"
        ? html`<${DeployForm} version=${version} />`
        : html`<p class="hint">Only an approved version can be deployed.</p>`}
      <h3>All members</h3>
      <pre tabindex="0">${JSON.stringify({ ...version, metrics: undefined }, null, 2)}</pre>
    </section>
  `;
}

const CONTAINER_COLUMNS = [
  { title: "Image", render: (row) => row.Image },
  { title: "Model data", render: (row) => row.ModelDataUrl ?? row.ModelDataSource?.S3DataSource?.S3Uri },
];

/** The contents of the files with metrics. */
function Metrics({ metrics }) {
  const rows = metrics.flatMap(({ name, uri, values, error }) => [
    { file: name, uri, error },
    ...values.map(([metric, value]) => ({ file: name, metric, value })),
  ]);
  return rows.length === 0 ? null : html`
    <h3>Metrics</h3>
    <${Table} caption="Metrics" columns=${METRIC_COLUMNS} rows=${rows} getKey=${(row) => `${row.file} ${row.metric ?? ""}`} />
  `;
}

const METRIC_COLUMNS = [
  { title: "File", render: (row) => (row.uri ? html`<a href=${makeUriHref(row.uri)}>${row.file}</a>` : "") },
  { title: "Metric", render: (row) => row.metric ?? (row.error && html`<span class="status failure">${row.error.message}</span>`) },
  { title: "Value", isNumber: true, render: (row) => (row.value === undefined ? "" : String(row.value)) },
];

const Facts = ({ title, facts }) =>
  facts.length === 0 ? null : html`
    <h3>${title}</h3>
    <dl>${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
  `;
