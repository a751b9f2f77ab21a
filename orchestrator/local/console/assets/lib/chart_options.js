// The form with the options of all charts of a page. The address of the page contains the options.

import { Field } from "./components.js";
import { replaceQuery } from "./router.js";
import { html } from "./ui.js";

/** Return the options of `Chart` that the query of an address has. */
export const readChartOptions = (query) => ({ isLog: query.log === "1", smoothing: Math.min(Number(query.smooth) || 0, 0.99) });

/** @param children further fields. */
export function ChartOptions({ query, children }) {
  const { isLog, smoothing } = readChartOptions(query);
  const change = (changes) => replaceQuery({ ...query, ...changes });
  return html`
    <form class="filters" onSubmit=${(event) => event.preventDefault()}>
      ${children}
      <label class="check">
        <input type="checkbox" checked=${isLog} onChange=${(event) => change({ log: event.target.checked ? "1" : "" })} />
        Logarithmic scale
      </label>
      <${Field} label=${`Smoothing: ${smoothing}`}>
        <input type="range" min="0" max="0.99" step="0.01" value=${smoothing}
          onInput=${(event) => change({ smooth: event.target.value === "0" ? "" : event.target.value })} />
      <//>
    </form>
    <p class="hint">
      Drag across a chart to zoom, and double-click to see all of it. Keys: + and − zoom, arrows move, and 0 shows all.
    </p>
  `;
}
