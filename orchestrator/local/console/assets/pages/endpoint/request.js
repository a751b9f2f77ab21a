// A form that sends a request to an endpoint.

import { Field } from "../../lib/components.js";
import { html, useState } from "../../lib/ui.js";
import { invoke } from "./invoke.js";
import { Result } from "./result.js";

const TYPES = ["application/json", "text/csv", "application/jsonlines", "text/plain", "application/x-npy", "application/octet-stream"];
const MODES = { whole: "as a whole", stream: "as a stream" };
const IDLE = { isSending: false, responseBytes: null, result: null };

export function RequestForm({ endpoint, variants, components, isAsynchronous }) {
  const [state, setState] = useState(IDLE);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setState({ ...IDLE, isSending: true });
    const setResponseBytes = (responseBytes) => setState((old) => ({ ...old, responseBytes }));
    const result = await invoke(endpoint, form, isAsynchronous ? "queue" : form.get("mode"), setResponseBytes);
    setState((old) => ({ ...old, isSending: false, result }));
  };
  return html`
    <h2 id="request">Send a request</h2>
    <form aria-labelledby="request" onSubmit=${submit}>
      <div class="filters">
        <${Choice} label="Content type" name="ContentType" options=${TYPES} />
        <${Choice} label="Accept" name="Accept" options=${["", ...TYPES]} />
        ${!isAsynchronous && html`<${Choice} label="Receive" name="mode" options=${Object.keys(MODES)} />`}
        ${variants.length > 1 && html`
          <${Choice} label="Variant" name="TargetVariant"
            options=${["", ...variants.filter((variant) => !variant.isShadow).map((variant) => variant.name)]} />
        `}
        ${components.length > 0 && html`
          <${Choice} label="Inference component" name="InferenceComponentName" options=${components.map((component) => component.name)} />
        `}
        ${variants.some((variant) => variant.isMultiModel) && html`
          <${Field} label="Target model"><input name="TargetModel" placeholder="model.tar.gz" /><//>
        `}
        ${variants.some((variant) => variant.isDirect) && html`
          <${Field} label="Target container"><input name="TargetContainerHostname" required /><//>
        `}
        <${Field} label="File in place of the text"><input type="file" name="file" /><//>
      </div>
      <${Field} label="Body"><textarea name="text" rows="5" cols="80" spellcheck=${false}></textarea><//>
      <p><button disabled=${state.isSending}>Send</button></p>
    </form>
    <div role="status">${state.isSending ? "Waiting for the response…" : ""}</div>
    <${Result} endpoint=${endpoint} ...${state} />
  `;
}

/** A field of the form. The browser keeps its value, so the component has no state for it. */
const Choice = ({ label, name, options }) => html`
  <${Field} label=${label}>
    <select name=${name}>${options.map((option) => html`<option value=${option}>${MODES[option] ?? (option || "any")}</option>`)}</select>
  <//>
`;
