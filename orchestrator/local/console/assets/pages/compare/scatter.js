// A plot with one point per run.

import { Select } from "../../lib/components.js";
import { formatNumber } from "../../lib/chart.js";
import { formatCount } from "../../lib/format.js";
import { replaceQuery } from "../../lib/router.js";
import { makeScale, toNumber } from "../../lib/scales.js";
import { html } from "../../lib/ui.js";

const [WIDTH, HEIGHT, MARGIN] = [720, 300, 60];
const MAX_LABELED_POINTS = 16; // if there are more points, only the highlighted point has a label

/** A scatter plot, and the choice of its axes, which the URL of the page contains.
 *
 * @param columns the names of hyperparameters and metrics. */
export function ScatterPlot({ query, runs, columns, highlightedName, onHighlight }) {
  const variedNames = columns.filter((name) => new Set(runs.map((run) => run.values[name])).size > 1);
  const numericNames = variedNames.filter((name) => runs.some((run) => Number.isFinite(toNumber(run.values[name]))));
  const defaultNames = [numericNames, variedNames, columns].find((names) => names.length > 1) ?? [];
  if (defaultNames.length < 2) return null;
  const xName = columns.includes(query.x) ? query.x : defaultNames[0];
  const yName = columns.includes(query.y) ? query.y : defaultNames.at(-1);
  const change = (changes) => replaceQuery({ ...query, x: xName, y: yName, ...changes });
  const options = columns.map((name) => [name, name]);
  return html`
    <h2>Scatter plot</h2>
    <div class="filters">
      <${Select} label="Horizontal" value=${xName} options=${options} onChange=${(name) => change({ x: name })} />
      <${Select} label="Vertical" value=${yName} options=${options} onChange=${(name) => change({ y: name })} />
    </div>
    <${Points} runs=${runs} xName=${xName} yName=${yName} highlightedName=${highlightedName} onHighlight=${onHighlight} />
  `;
}

function Points({ runs, xName, yName, highlightedName, onHighlight }) {
  const completeRuns = runs.filter((run) => [xName, yName].every((name) => run.values[name] !== undefined));
  if (!completeRuns.length) return html`<p>No run has values for both axes.</p>`;
  const [xScale, yScale] = [xName, yName].map((name) => makeScale(completeRuns.map((run) => run.values[name])));
  const toX = (position) => MARGIN + position * (WIDTH - 2 * MARGIN);
  const toY = (position) => HEIGHT - MARGIN - position * (HEIGHT - 2 * MARGIN);
  const points = completeRuns.map(({ name, values }) => ({ name, values, left: toX(xScale.toPosition(values[xName])), top: toY(yScale.toPosition(values[yName])) }));
  const isLabeled = (name) => points.length <= MAX_LABELED_POINTS || name === highlightedName;
  return html`
    <svg class="scatter" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${describe(points, xName, yName)}>
      <path d="M${MARGIN} ${MARGIN / 2}V${HEIGHT - MARGIN}H${WIDTH - MARGIN / 2}" />
      ${xScale.ticks.map(({ position, label }) => html`<text x=${toX(position)} y=${HEIGHT - MARGIN + 18} text-anchor="middle">${label}</text>`)}
      ${yScale.ticks.map(({ position, label }) => html`<text x=${MARGIN - 6} y=${toY(position) + 4} text-anchor="end">${label}</text>`)}
      <text x=${WIDTH / 2} y=${HEIGHT - 12} text-anchor="middle">${xName}${xScale.isLog ? " (log)" : ""}</text>
      <text x=${MARGIN} y="14" text-anchor="middle">${yName}${yScale.isLog ? " (log)" : ""}</text>
      ${points.map(({ name, left, top }) => html`
        <g key=${name} onPointerEnter=${() => onHighlight(name)} onPointerLeave=${() => onHighlight("")}>
          <title>${name}</title><circle class=${name === highlightedName ? "highlighted" : ""} cx=${left} cy=${top} r="5" />
          ${isLabeled(name) && html`<text x=${left + 8} y=${top - 6}>${name}</text>`}
        </g>
      `)}
    </svg>
  `;
}

const format = (value) => (Number.isFinite(Number(value)) ? formatNumber(Number(value)) : value);

function describe(points, xName, yName) {
  const parts = points.slice(0, MAX_LABELED_POINTS).map(({ name, values }) => `${name}: ${format(values[xName])}, ${format(values[yName])}`);
  const remainder = points.length - parts.length;
  return `${yName} by ${xName}. ${parts.join("; ")}${remainder ? `; and ${formatCount(remainder, "more run")}` : ""}`;
}
