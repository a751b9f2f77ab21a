// A plot with one point per job.

import { formatNumber } from "../../lib/chart.js";
import { html } from "../../lib/ui.js";

const [WIDTH, HEIGHT, MARGIN] = [720, 300, 50];

/** @param x, y the names of the values on the axes. Jobs without a number for both are left out. */
export function Scatter({ runs, x, y }) {
  const points = runs
    .map((run) => ({ name: run.name, x: Number(run.values[x] ?? NaN), y: Number(run.values[y] ?? NaN) }))
    .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
  if (!points.length) return html`<p>No job has a number for both.</p>`;
  const [left, right] = findRange(points.map((point) => point.x));
  const [low, high] = findRange(points.map((point) => point.y));
  const place = (point) => [
    MARGIN + ((point.x - left) / (right - left)) * (WIDTH - 2 * MARGIN),
    HEIGHT - MARGIN - ((point.y - low) / (high - low)) * (HEIGHT - 2 * MARGIN),
  ];
  const label = points.map((point) => `${point.name}: ${formatNumber(point.x)}, ${formatNumber(point.y)}`).join("; ");
  return html`
    <svg class="scatter" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${y} by ${x}. ${label}">
      <path d="M${MARGIN} ${MARGIN / 2}V${HEIGHT - MARGIN}H${WIDTH - MARGIN / 2}" />
      ${[left, right].map((value, index) => html`
        <text x=${index ? WIDTH - MARGIN : MARGIN} y=${HEIGHT - MARGIN + 18} text-anchor="middle">${formatNumber(value)}</text>
      `)}
      ${[low, high].map((value, index) => html`
        <text x=${MARGIN - 6} y=${index ? MARGIN + 4 : HEIGHT - MARGIN} text-anchor="end">${formatNumber(value)}</text>
      `)}
      <text x=${WIDTH / 2} y=${HEIGHT - 8} text-anchor="middle">${x}</text>
      <text x=${MARGIN} y="14" text-anchor="middle">${y}</text>
      ${points.map((point) => {
        const [across, up] = place(point);
        return html`<g key=${point.name}><title>${point.name}</title><circle cx=${across} cy=${up} r="5" />
          <text x=${across + 8} y=${up - 6}>${point.name}</text></g>`;
      })}
    </svg>
  `;
}

/** Return the smallest and the largest value; a range of 1 if they are equal. */
function findRange(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}
