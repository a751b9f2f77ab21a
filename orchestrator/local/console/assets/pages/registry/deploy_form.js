// The form that deploys a version to a new endpoint, or to a variant of an existing endpoint.

import { Field, Problem, Select } from "../../lib/components.js";
import { useQuery } from "../../lib/query.js";
import { makeHref } from "../../lib/router.js";
import { html, useState } from "../../lib/ui.js";
import { deploy, listEndpoints, loadConfig, update } from "./deploy.js";

export function DeployForm({ version }) {
  const [endpoint, setEndpoint] = useState("");
  const { data: endpoints, error } = useQuery(listEndpoints, [], (change) => change.kind === "endpoint");
  const types = version.InferenceSpecification?.SupportedRealtimeInferenceInstanceTypes ?? [];
  const options = [["", "new endpoint"], ...(endpoints ?? []).map((name) => [name, name])];
  return html`
    <h3 id="deploy">Deploy</h3>
    <${Problem} error=${error} />
    <div class="filters">
      <${Select} label="Deploy to" value=${endpoint} options=${options} onChange=${setEndpoint} />
      ${endpoint
        ? html`<${UpdateForm} key=${endpoint} version=${version} endpoint=${endpoint} />`
        : html`<${CreateForm} version=${version} type=${types[0] ?? "ml.m5.large"} />`}
    </div>
  `;
}

function CreateForm({ version, type }) {
  const send = async (form) => {
    await deploy(version, form.get("endpoint"), readInstances(form));
    return form.get("endpoint");
  };
  return html`
    <${Form} label="Deploy" send=${send}>
      <${Field} label="Name of the endpoint"><input name="endpoint" required maxlength="50" /><//>
      <${Instances} type=${type} count=${1} />
    <//>
  `;
}

function UpdateForm({ version, endpoint }) {
  const [chosenName, setChosenName] = useState(null);
  const { data: config, error } = useQuery((signal) => loadConfig(endpoint, signal), [endpoint]);
  const variants = config?.ProductionVariants.filter((variant) => variant.ModelName) ?? [];
  const variant = variants.find((variant) => variant.VariantName === chosenName) ?? variants[0];
  const send = async (form) => {
    await update(version, endpoint, variant.VariantName, variant.ServerlessConfig ? {} : readInstances(form));
    return endpoint;
  };
  return html`
    <${Problem} error=${error} />
    ${config && !variant && html`<p class="hint">The variants of this endpoint have no model.</p>`}
    ${variant && html`
      <${Form} label="Update the endpoint" send=${send}>
        <${Select} label="Variant" value=${variant.VariantName} options=${variants.map((item) => [item.VariantName, item.VariantName])}
          onChange=${setChosenName} />
        ${!variant.ServerlessConfig && html`
          <${Instances} key=${variant.VariantName} type=${variant.InstanceType} count=${variant.InitialInstanceCount} />
        `}
      <//>
    `}
  `;
}

const readInstances = (form) => ({ InstanceType: form.get("type"), InitialInstanceCount: Number(form.get("count")) });

const Instances = ({ type, count }) => html`
  <${Field} label="Instance type"><input name="type" required defaultValue=${type} /><//>
  <${Field} label="Instances"><input name="count" type="number" min="1" defaultValue=${count} required /><//>
`;

/** A form. When it is sent, the page of the endpoint replaces this page, and shows the progress. */
function Form({ label, send, children }) {
  const [state, setState] = useState({ error: null, isSending: false });
  const submit = async (event) => {
    event.preventDefault();
    setState({ error: null, isSending: true });
    try {
      location.hash = makeHref(["endpoints", await send(new FormData(event.target))]);
    } catch (error) {
      setState({ error, isSending: false });
    }
  };
  return html`
    <form class="filters" aria-labelledby="deploy" onSubmit=${submit}>
      ${children}
      <button disabled=${state.isSending}>${label}</button>
    </form>
    <${Problem} error=${state.error} />
  `;
}
