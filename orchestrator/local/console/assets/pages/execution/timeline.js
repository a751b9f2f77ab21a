// The table of an execution's steps, with a bar for the time of each step.

import { Table } from "../../lib/components.js";
import { formatDuration } from "../../lib/format.js";
import { html } from "../../lib/ui.js";

const STATUS_CLASSES = { Succeeded: "success", Failed: "failure", Stopped: "neutral" };

/** Return the CSS class for the status of a step. */
export const classifyStep = (status) => STATUS_CLASSES[status] ?? "active";

/** @param start the left end of the bars, in seconds since 1970; `end` is the right end. */
export function Timeline({ rows, start, end }) {
  const columns = [
    { title: "Step", render: (row) => (row.href ? html`<a href=${row.href}>${row.name}</a>` : row.name) },
    { title: "Type", render: (row) => row.type },
    { title: "Status", render: (row) => html`<span class=${`status ${classifyStep(row.status)}`}>${row.status}</span>` },
    { title: "Attempts", isNumber: true, render: (row) => row.attempts },
    { title: "Notes", render: (row) => describe(row) },
    { title: "Duration", isNumber: true, render: (row) => formatDuration((row.end ?? end) - row.start) },
    { title: "Time", render: (row) => html`<${Bar} row=${row} start=${start} end=${end} />` },
  ];
  return html`<${Table} caption="Steps" columns=${columns} rows=${rows} getKey=${(row) => row.name}
    empty="No step has started." />`;
}

function describe(row) {
  if (row.failure) return row.failure;
  if (!row.reusedFrom) return "";
  return `${row.isCacheHit ? "cache hit: " : ""}result of execution ${row.reusedFrom.split("/").pop()}`;
}

function Bar({ row, start, end }) {
  const total = Math.max(end - start, 0.001);
  const [left, right] = [row.start - start, (row.end ?? end) - start].map((seconds) => Math.min(Math.max(seconds / total, 0), 1));
  const style = { marginLeft: `${left * 100}%`, width: `${Math.max(right - left, 0.005) * 100}%` };
  return html`<div class="bar"><div class=${classifyStep(row.status)} style=${style}></div></div>`;
}
