// Components that all pages share.

import { classifyStatus } from "./kinds.js";
import { formatTime } from "./format.js";
import { html, useEffect, useRef } from "./ui.js";

/** A page's heading. The heading gets the focus, so that screen readers announce a new page. */
export function Heading({ children }) {
  const heading = useRef(null);
  useEffect(() => heading.current.focus({ preventScroll: true }), []);
  return html`<h1 tabindex="-1" ref=${heading}>${children}</h1>`;
}

export const Status = ({ kind, status }) => html`<span class="status ${classifyStatus(kind, status)}">${status}</span>`;

export const Time = ({ seconds }) =>
  seconds ? html`<time datetime=${new Date(seconds * 1000).toISOString()}>${formatTime(seconds)}</time>` : null;

export const Problem = ({ error }) => (error ? html`<p class="problem" role="alert">${error.message}</p>` : null);

/** A label with a form field: `<${Field} label="Name"><input/><//>`. */
export const Field = ({ label, children }) => html`<label class="field"><span>${label}</span>${children}</label>`;

export const Select = ({ label, value, options, onChange }) => html`
  <${Field} label=${label}>
    <select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}
    </select>
  <//>
`;

/** A table. The keys Up and Down move the focus between the links of its first column.
 *
 * @param columns `[{title, render: (row) => content, isNumber}]`
 * @param getKey returns a unique text for a row.
 */
export function Table({ caption, columns, rows, getKey, empty = "Nothing was found." }) {
  return html`
    <div class="table" role="region" aria-label=${caption} tabindex="0">
      <table onKeyDown=${moveFocus}>
        <caption class="hidden">${caption}</caption>
        <thead><tr>
          ${columns.map((column) => html`<th scope="col" class=${column.isNumber ? "number" : ""}>${column.title}</th>`)}
        </tr></thead>
        <tbody>
          ${rows.map((row) => html`<${Row} key=${getKey(row)} row=${row} columns=${columns} />`)}
          ${rows.length ? null : html`<tr><td colspan=${columns.length}>${empty}</td></tr>`}
        </tbody>
      </table>
    </div>
  `;
}

const Row = ({ row, columns }) => html`
  <tr>${columns.map((column) => html`<td class=${column.isNumber ? "number" : ""}>${column.render(row)}</td>`)}</tr>
`;

function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.closest("tbody a")) return;
  const links = [...event.currentTarget.querySelectorAll("tbody td:first-child a")];
  const index = links.findIndex((link) => link.closest("tr") === event.target.closest("tr"));
  links[index + step]?.focus();
  event.preventDefault();
}
