// The preview of an object. The page shows the content as text or as an image, and executes nothing.

import { Problem, Table } from "../../lib/components.js";
import { formatBytes } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/ui.js";

const FORMATS = { archive: Archive, csv: Csv, image: Image, npy: Npy, text: Text };

export function Preview({ name, preview }) {
  if (preview.error) return html`<${Problem} error=${preview.error} />`;
  const Format = FORMATS[preview.format];
  return Format ? html`<${Format} name=${name} ...${preview} />` : html`<p>No preview exists for this format.</p>`;
}

function Text({ text }) {
  return text ? html`<pre tabindex="0">${text}</pre>` : html`<p>The object is empty.</p>`;
}

function Image({ name, image }) {
  const [address, setAddress] = useState(null);
  useEffect(() => {
    const url = URL.createObjectURL(image);
    setAddress(url);
    return () => URL.revokeObjectURL(url);
  }, [image]);
  return address && html`<img src=${address} alt=${name} class="preview" />`;
}

function Csv({ rows }) {
  const width = Math.max(0, ...rows.map((row) => row.length));
  const columns = Array.from({ length: width }, (_, index) => ({ title: index + 1, render: (row) => row.cells[index] }));
  return html`<${Table} caption="Rows" columns=${columns} rows=${rows.map((cells, index) => ({ cells, index }))}
    getKey=${(row) => row.index} empty="The table is empty." />`;
}

function Npy({ npy: { type, shape, order, values } }) {
  return html`
    <dl>
      <dt>Data type</dt><dd>${type}</dd>
      <dt>Shape</dt><dd>(${shape.join(", ")})</dd>
      <dt>Order</dt><dd>${order}</dd>
    </dl>
    ${values ? html`<h3>First values</h3><pre tabindex="0">${values.join(" ")}</pre>` : html`<p>Values of this type are not shown.</p>`}
  `;
}

const MEMBER_COLUMNS = [
  { title: "Name", render: (row) => row.name },
  { title: "Type", render: (row) => row.type },
  { title: "Size", isNumber: true, render: (row) => (row.type === "file" ? formatBytes(row.size) : "") },
];

function Archive({ archive: { members, isComplete } }) {
  const rows = members.map((member, index) => ({ ...member, index }));
  return html`
    ${!isComplete && html`<p class="hint">The first ${members.length} members of the archive are shown.</p>`}
    <${Table} caption="Contents of the archive" columns=${MEMBER_COLUMNS} rows=${rows} getKey=${(row) => row.index} />
  `;
}
