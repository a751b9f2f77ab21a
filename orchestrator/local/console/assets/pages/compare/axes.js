// The axes of the parallel coordinates: which axes are shown, their scales and ranges. The form offers the same choices
// as the plot, for users of the keyboard.

import { Table } from "../../lib/components.js";
import { makeScale } from "../../lib/scales.js";
import { html } from "../../lib/ui.js";

const MAX_PARAMETERS = 6;
const MAX_METRICS = 4;
const SDK_NAME = /^(sagemaker_|_)/; // hyperparameters with such a prefix come from the SDK, not from the user

/** Return all possible axes, `[{name, scale, range, isShown}]`.
 *
 * @param settings `{[name]: {isShown, isLog, range}}`, the user's choices. */
export function makeAxes({ runs, columns, metrics }, settings) {
  const columnValues = columns.map((name) => ({ name, values: runs.map((run) => run.values[name]) }));
  const columnsWithValues = columnValues.filter(({ values }) => values.some((value) => value !== undefined));
  const variedColumns = columnsWithValues.filter(({ name, values }) => new Set(values).size > 1 && !SDK_NAME.test(name));
  const names = variedColumns.map(({ name }) => name);
  const defaultNames = new Set([
    ...names.filter((name) => !metrics.includes(name)).slice(0, MAX_PARAMETERS),
    ...names.filter((name) => metrics.includes(name)).slice(0, MAX_METRICS),
  ]);
  return columnsWithValues.map(({ name, values }) => {
    const { isShown = defaultNames.has(name), isLog, range = null } = settings[name] ?? {};
    return { name, isShown, range, scale: makeScale(values, isLog) };
  });
}

/** @param onChange called with the name of an axis and its new settings. */
export function AxesForm({ axes, onChange }) {
  const columns = [
    { title: "Axis", render: ({ name, isShown }) => html`
      <label class="check">
        <input type="checkbox" checked=${isShown} onChange=${(event) => onChange(name, { isShown: event.target.checked })} />${name}
      </label>` },
    { title: "Scale", render: ({ name, scale }) => html`<${ScaleChoice} name=${name} scale=${scale} onChange=${onChange} />` },
    { title: "Range", render: (axis) => html`<${RangeChoice} ...${axis} onRange=${(range) => onChange(axis.name, { range })} />` },
  ];
  return html`
    <details>
      <summary>Axes and ranges</summary>
      <${Table} caption="Axes and ranges" columns=${columns} rows=${axes} getKey=${(axis) => axis.name} />
    </details>
  `;
}

function ScaleChoice({ name, scale, onChange }) {
  if (!scale.isNumeric) return "categories";
  if (!scale.canBeLog) return "linear";
  return html`
    <label class="check">
      <input type="checkbox" checked=${scale.isLog} aria-label="Logarithmic scale of ${name}"
        onChange=${(event) => onChange(name, { isLog: event.target.checked })} />logarithmic
    </label>
  `;
}

function RangeChoice({ name, scale, range, onRange }) {
  if (!scale.isNumeric) return html`<${CategoryChoice} name=${name} scale=${scale} range=${range} onRange=${onRange} />`;
  const change = (end, text) => {
    const [low, high] = range ?? [-Infinity, Infinity];
    const newRange = end === "low" ? [text === "" ? -Infinity : Number(text), high] : [low, text === "" ? Infinity : Number(text)];
    onRange(newRange.some(Number.isFinite) ? newRange : null);
  };
  const show = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)) : "");
  return html`
    <span class="range">
      <input type="number" step="any" aria-label="Lowest ${name}" value=${show(range?.[0])} onChange=${(event) => change("low", event.target.value)} />
      to
      <input type="number" step="any" aria-label="Highest ${name}" value=${show(range?.[1])} onChange=${(event) => change("high", event.target.value)} />
    </span>
  `;
}

function CategoryChoice({ name, scale, range, onRange }) {
  const chosenLabels = range && scale.ticks.filter(({ position }) => position >= range[0] && position <= range[1]).map(({ label }) => label);
  const choose = (label) => {
    const tick = scale.ticks.find((tick) => tick.label === label);
    onRange(tick ? [tick.position, tick.position] : null);
  };
  return html`
    <select aria-label="Category of ${name}" value=${chosenLabels?.length === 1 ? chosenLabels[0] : ""} onChange=${(event) => choose(event.target.value)}>
      <option value="">${chosenLabels?.length > 1 ? chosenLabels.join(", ") : "all"}</option>
      ${scale.ticks.map(({ label }) => html`<option value=${label}>${label}</option>`)}
    </select>
  `;
}
