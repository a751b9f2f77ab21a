// The folders and objects of a bucket.

import { call } from "../lib/api.js";
import { Field, Heading, Problem, Table, Time } from "../lib/components.js";
import { formatBytes } from "../lib/format.js";
import { useQuery } from "../lib/query.js";
import { makeHref, replaceQuery } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

const PAGE_SIZE = 500;

export function Page({ params: { bucket }, query: { prefix = "" } }) {
  return html`
    <${Heading}>${bucket}<//>
    <${Folders} bucket=${bucket} prefix=${prefix} />
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Field} label="Keys begin with">
        <input type="search" value=${prefix} size="60" onInput=${(event) => replaceQuery({ prefix: event.target.value })} />
      <//>
    </form>
    <${Listing} key=${prefix} bucket=${bucket} prefix=${prefix} />
  `;
}

/** Links to the folders that contain the listed objects. */
function Folders({ bucket, prefix }) {
  const names = prefix.split("/").slice(0, -1);
  return html`
    <nav aria-label="Folders" class="folders">
      <a href=${makeHref(["buckets", bucket])}>${bucket}</a>
      ${names.map((name, index) => html`
        <span>/</span>
        <a href=${makeHref(["buckets", bucket], { prefix: `${names.slice(0, index + 1).join("/")}/` })}>${name}</a>
      `)}
    </nav>
  `;
}

function Listing({ bucket, prefix }) {
  const [count, setCount] = useState(PAGE_SIZE);
  const load = (signal) => listKeys(bucket, prefix, count, signal);
  const { data, error, reload } = useQuery(load, [bucket, count]);
  const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
  return html`
    <${Problem} error=${error} />
    ${data && html`
      <${Table} caption="Objects" columns=${makeColumns(bucket, folder)} rows=${data.rows} getKey=${(row) => row.key}
        empty="No object matches." />
      <p class="actions">
        ${data.hasMore && html`<button onClick=${() => setCount(count + PAGE_SIZE)}>Show more</button>`}
        <button onClick=${reload}>Reload</button>
      </p>
    `}
  `;
}

const makeColumns = (bucket, folder) => [
  { title: "Name", render: (row) => html`<a href=${makeRowHref(bucket, row)}>${row.key.slice(folder.length)}</a>` },
  { title: "Size", isNumber: true, render: (row) => (row.isFolder ? "" : formatBytes(row.size)) },
  { title: "Changed", render: (row) => html`<${Time} seconds=${row.changed} />` },
];

const makeRowHref = (bucket, row) =>
  row.isFolder ? makeHref(["buckets", bucket], { prefix: row.key }) : makeHref(["buckets", bucket, row.key]);

/** Return up to `count` folders and objects, and whether there are more. */
async function listKeys(bucket, prefix, count, signal) {
  const rows = [];
  for (let token = {}; token; ) {
    const members = { Bucket: bucket, Prefix: prefix, Delimiter: "/", ...token };
    const answer = await call("s3", "ListObjectsV2", members, { signal });
    const folders = (answer.CommonPrefixes ?? []).map((common) => ({ key: common.Prefix, isFolder: true }));
    const objects = (answer.Contents ?? []).map((object) => ({ key: object.Key, size: object.Size, changed: object.LastModified }));
    rows.push(...[...folders, ...objects].sort((first, second) => (first.key < second.key ? -1 : 1)));
    token = answer.NextContinuationToken ? { ContinuationToken: answer.NextContinuationToken } : null;
    if (rows.length > count) break;
  }
  return { rows: rows.slice(0, count), hasMore: rows.length > count };
}
