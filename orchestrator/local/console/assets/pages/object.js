// One object: its size, type and metadata, and a preview of its content.

import { Heading, Problem, Time } from "../lib/components.js";
import { formatBytes } from "../lib/format.js";
import { describeObject, downloadObject } from "../lib/objects.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";
import { loadPreview } from "./object/load.js";
import { Preview } from "./object/preview.js";

export function Page({ params: { bucket, key } }) {
  const { data, error } = useQuery((signal) => load(bucket, key, signal), [bucket, key]);
  const [downloadError, setDownloadError] = useState(null);
  const folder = key.slice(0, key.lastIndexOf("/") + 1);
  return html`
    <${Heading}>${key.slice(folder.length) || key}<//>
    <div class="actions">
      <a href=${makeHref(["buckets", bucket], { prefix: folder })}>s3://${bucket}/${folder}</a>
      <button onClick=${() => downloadObject(bucket, key).catch(setDownloadError)}>Download</button>
    </div>
    <${Problem} error=${error ?? downloadError} />
    ${data && html`
      <${Facts} object=${data.object} />
      <h2>Preview</h2>
      ${data.preview.isPart && html`<p class="hint">The beginning of the object is shown.</p>`}
      <${Preview} name=${key} preview=${data.preview} />
    `}
  `;
}

async function load(bucket, key, signal) {
  const object = await describeObject(bucket, key, signal);
  return { object, preview: await loadPreview(bucket, key, object.size, signal) };
}

function Facts({ object }) {
  const facts = [
    ["Size", formatBytes(object.size)],
    ["Type", object.type],
    ["Changed", html`<${Time} seconds=${object.changed} />`],
    ["ETag", object.etag],
    ...Object.entries(object.metadata),
  ];
  return html`<dl>${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}
