// The response to a request, the model's error, or the S3 addresses of an asynchronous result.

import { formatBytes, formatDuration } from "../../lib/format.js";
import { describeObject, readStart } from "../../lib/objects.js";
import { isMetricOf } from "../../lib/metrics.js";
import { useQuery } from "../../lib/query.js";
import { makeHref } from "../../lib/router.js";
import { html, useEffect, useState } from "../../lib/ui.js";

const MAX_SHOWN_BYTES = 100_000;
const TEXT_TYPE_PATTERN = /json|text|csv|xml|yaml/;

/** @param result `{seconds, response}`, `{seconds, error}`, or null before the response is complete. */
export function Result({ endpoint, responseBytes: bytes, result }) {
  if (result?.error) return html`<${Body} bytes=${bytes} /><${Failure} error=${result.error} seconds=${result.seconds} />`;
  if (result?.response.output) return html`<${QueuedRequest} endpoint=${endpoint} ...${result.response} />`;
  if (!bytes) return null;
  const { ContentType: type = "", InvokedProductionVariant: variant } = result?.response ?? {};
  const facts = [type, formatBytes(bytes.length), result && formatDuration(result.seconds), variant && `variant ${variant}`];
  return html`
    <section aria-label="Response">
      <p>
        <span class=${`status ${result ? "success" : "active"}`}>${result ? "Success" : "Receiving"}</span>
        ${" "}${facts.filter(Boolean).join(", ")}
      </p>
      <${Body} bytes=${bytes} type=${type} />
      ${result && html`<${DownloadLink} bytes=${bytes} />`}
    </section>
  `;
}

function Body({ bytes, type = "" }) {
  if (!bytes) return null;
  return TEXT_TYPE_PATTERN.test(type) || isText(bytes)
    ? html`<pre tabindex="0">${format(bytes, type)}</pre>`
    : html`<p>The response is not text.</p>`;
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

/** An asynchronous request. The page checks for the result whenever the endpoint has new metrics. */
function QueuedRequest({ endpoint, output, failure }) {
  const usesMetric = (dimensions) => isMetricOf(endpoint, dimensions);
  const { data } = useQuery((signal) => findResult([output, failure], signal), [output], null, usesMetric);
  const [statusClass, status] = !data ? ["active", "In the queue"] : data.uri === output ? ["success", "Success"] : ["failure", "Failed"];
  return html`
    <section aria-label="Response">
      <p><span class=${`status ${statusClass}`}>${status}</span></p>
      <p>The result will be the object <${ObjectLink} uri=${output} />; an error will be <${ObjectLink} uri=${failure} />.</p>
      ${data && html`<${Body} bytes=${data.bytes} type=${data.type} />`}
    </section>
  `;
}

const splitUri = (uri) => {
  const [bucket, ...key] = uri.slice("s3://".length).split("/");
  return [bucket, key.join("/")];
};

const ObjectLink = ({ uri }) => (uri ? html`<a href=${makeHref(["buckets", ...splitUri(uri)])}>${uri}</a>` : "in the log");

/** Return the first object that exists, `{uri, type, bytes}`; null if none exists. */
async function findResult(uris, signal) {
  for (const uri of uris.filter(Boolean)) {
    const [bucket, key] = splitUri(uri);
    const { type } = await describeObject(bucket, key, signal).catch((error) => {
      if (signal.aborted || error.status !== 404) throw error;
      return {};
    });
    if (type !== undefined) return { uri, type, bytes: await readStart(bucket, key, MAX_SHOWN_BYTES, signal) };
  }
  return null;
}

/** A link that stores the response in a file. */
function DownloadLink({ bytes }) {
  const [address, setAddress] = useState(null);
  useEffect(() => {
    const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    setAddress(url);
    return () => URL.revokeObjectURL(url);
  }, [bytes]);
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
