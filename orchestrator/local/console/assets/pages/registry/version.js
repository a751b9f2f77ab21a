// One version of a model: its containers, metrics and metadata, its approval, and a form that deploys it.

import { call } from "../../lib/api.js";
import { Field, Problem, Table } from "../../lib/components.js";
import { makeHref } from "../../lib/router.js";
import { html, useState } from "../../lib/ui.js";
import { deploy } from "./deploy.js";

const CLASSES = { Approved: "success", Rejected: "failure" };

export const Approval = ({ status }) => html`<span class=${`status ${CLASSES[status] ?? "neutral"}`}>${status}</span>`;

export function Version({ version, reload }) {
  const [error, setError] = useState(null);
  const change = (status) => {
    const members = { ModelPackageArn: version.ModelPackageArn, ModelApprovalStatus: status };
    call("sagemaker", "UpdateModelPackage", members).then(() => setError(null) ?? reload(), setError);
  };
  const status = version.ModelApprovalStatus;
  return html`
    <section aria-labelledby="version">
      <h2 id="version">Version ${version.ModelPackageVersion}</h2>
      <div class="actions">
        <${Approval} status=${status} />
        ${status !== "Approved" && html`<button onClick=${() => change("Approved")}>Approve</button>`}
        ${status !== "Rejected" && html`<button onClick=${() => change("Rejected")}>Reject</button>`}
      </div>
      <${Problem} error=${error} />
      <${Table} caption="Containers" columns=${CONTAINER_COLUMNS} rows=${version.InferenceSpecification?.Containers ?? []}
        getKey=${(row) => row.ContainerHostname ?? row.Image} />
      <${Facts} title="Metrics" facts=${listMetrics(version.ModelMetrics)} />
      <${Facts} title="Metadata" facts=${Object.entries(version.CustomerMetadataProperties ?? {})} />
      ${status === "Approved"
        ? html`<${DeployForm} version=${version} />`
        : html`<p class="hint">Only an approved version can be deployed.</p>`}
      <h3>All members</h3>
      <pre tabindex="0">${JSON.stringify(version, null, 2)}</pre>
    </section>
  `;
}

const CONTAINER_COLUMNS = [
  { title: "Image", render: (row) => row.Image },
  { title: "Model data", render: (row) => row.ModelDataUrl ?? row.ModelDataSource?.S3DataSource?.S3Uri },
];

/** Return `[name, address]` for each file with metrics. */
const listMetrics = (metrics) =>
  Object.entries(metrics ?? {}).flatMap(([group, files]) =>
    Object.entries(files).map(([name, file]) => [`${group}.${name}`, file.S3Uri]),
  );

const Facts = ({ title, facts }) =>
  facts.length === 0 ? null : html`
    <h3>${title}</h3>
    <dl>${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
  `;

function DeployForm({ version }) {
  const [state, setState] = useState({ error: null, isSending: false });
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setState({ error: null, isSending: true });
    try {
      await deploy(version, form.get("endpoint"), form.get("type"), Number(form.get("count")));
      location.hash = makeHref(["endpoints", form.get("endpoint")]);
    } catch (error) {
      setState({ error, isSending: false });
    }
  };
  const types = version.InferenceSpecification?.SupportedRealtimeInferenceInstanceTypes ?? [];
  return html`
    <h3 id="deploy">Deploy</h3>
    <form class="filters" aria-labelledby="deploy" onSubmit=${send}>
      <${Field} label="Name of the endpoint"><input name="endpoint" required maxlength="50" /><//>
      <${Field} label="Instance type"><input name="type" required defaultValue=${types[0] ?? "ml.m5.large"} /><//>
      <${Field} label="Instances"><input name="count" type="number" min="1" defaultValue="1" required /><//>
      <button disabled=${state.isSending}>Deploy</button>
    </form>
    <${Problem} error=${state.error} />
  `;
}
