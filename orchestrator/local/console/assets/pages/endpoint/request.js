// A form that sends a request to an endpoint, and its response or the model's error.

import { call } from "../../lib/api.js";
import { Field } from "../../lib/components.js";
import { formatBytes, formatDuration } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/ui.js";

const MAX_SHOWN_BYTES = 100_000;
const TYPES = ["application/json", "text/csv", "application/jsonlines", "text/plain", "application/x-npy", "application/octet-stream"];
const TEXT = /json|text|csv|xml|yaml/;

export function RequestForm({ endpoint, variants, components }) {
  const [state, setState] = useState({ isSending: false, result: null });
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setState({ isSending: true, result: null });
    setState({ isSending: false, result: await invoke(endpoint, form) });
  };
  return html`
    <h2 id="request">Send a request</h2>
    <form aria-labelledby="request" onSubmit=${send}>
      <div class="filters">
        <${Choice} label="Content type" name="ContentType" options=${TYPES} />
        <${Choice} label="Accept" name="Accept" options=${["", ...TYPES]} />
        ${variants.length > 1 && html`
          <${Choice} label="Variant" name="TargetVariant"
            options=${["", ...variants.filter((one) => !one.isShadow).map((one) => one.name)]} />
        `}
        ${components.length > 0 && html`
          <${Choice} label="Inference component" name="InferenceComponentName" options=${components.map((one) => one.name)} />
        `}
        ${variants.some((one) => one.isMultiModel) && html`
          <${Field} label="Target model"><input name="TargetModel" placeholder="model.tar.gz" /><//>
        `}
        <${Field} label="File instead of the text"><input type="file" name="file" /><//>
      </div>
      <${Field} label="Body"><textarea name="text" rows="5" cols="80" spellcheck=${false}></textarea><//>
      <p><button disabled=${state.isSending}>Send</button></p>
    </form>
    <div role="status">${state.isSending ? "Waiting for the response…" : ""}</div>
    ${state.result && html`<${Result} ...${state.result} />`}
  `;
}

/** A field of the form that keeps its value itself. */
const Choice = ({ label, name, options }) => html`
  <${Field} label=${label}>
    <select name=${name}>${options.map((one) => html`<option value=${one}>${one || "any"}</option>`)}</select>
  <//>
`;

async function invoke(endpoint, form) {
  const start = performance.now();
  const finish = (content) => ({ seconds: (performance.now() - start) / 1000, ...content });
  try {
    const members = ["ContentType", "Accept", "TargetVariant", "InferenceComponentName", "TargetModel"]
      .map((name) => [name, form.get(name)])
      .filter(([, value]) => value);
    const file = form.get("file");
    const body = await encode(file?.size ? file : new Blob([form.get("text")]));
    const request = { EndpointName: endpoint, Body: body, ...Object.fromEntries(members) };
    return finish({ response: await call("sagemaker-runtime", "InvokeEndpoint", request) });
  } catch (error) {
    return finish({ error });
  }
}

/** Return the bytes of a file in base64. */
const encode = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

function Result({ response, error, seconds }) {
  if (error) return html`<${Failure} error=${error} seconds=${seconds} />`;
  const bytes = decode(response.Body);
  const facts = [response.ContentType, formatBytes(bytes.length), formatDuration(seconds), `variant ${response.InvokedProductionVariant}`];
  return html`
    <section aria-label="Response">
      <p><span class="status success">Success</span>${" "}${facts.join(", ")}</p>
      ${TEXT.test(response.ContentType) || isText(bytes)
        ? html`<pre tabindex="0">${format(bytes, response.ContentType)}</pre>`
        : html`<p>The response is not text.</p>`}
      <${Save} bytes=${bytes} type=${response.ContentType} />
    </section>
  `;
}

function Failure({ error, seconds }) {
  const { OriginalMessage: original, OriginalStatusCode: status } = error.members ?? {};
  return html`
    <section aria-label="Error" role="alert">
      <p><span class="status failure">${error.code}</span>${" "}after ${formatDuration(seconds)}</p>
      <p class="problem">${error.message}</p>
      ${original && html`<p>Status ${status}. The container's message:</p><pre tabindex="0">${original}</pre>`}
    </section>
  `;
}

/** A link that stores the response in a file. */
function Save({ bytes, type }) {
  const [address, setAddress] = useState(null);
  useEffect(() => {
    const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    setAddress(url);
    return () => URL.revokeObjectURL(url);
  }, [type, bytes.length]);
  return address && html`<a href=${address} download="response">Download the response</a>`;
}

function isText(bytes) {
  return !bytes.subarray(0, MAX_SHOWN_BYTES).some((byte) => byte < 9 || (byte > 13 && byte < 32 && byte !== 27));
}

function format(bytes, type) {
  const text = new TextDecoder().decode(bytes.subarray(0, MAX_SHOWN_BYTES));
  if (bytes.length > MAX_SHOWN_BYTES) return `${text}\n… (${formatBytes(bytes.length)} in all)`;
  try {
    return type.includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  } catch {
    return text;
  }
}
