// A comparison of runs: a table of hyperparameters and final metrics, parallel coordinates, a scatter plot, and curves.

import { Chart, formatNumber } from "../lib/chart.js";
import { ChartOptions, readChartOptions } from "../lib/chart_options.js";
import { Field, Heading, Problem, Select, Status, Table } from "../lib/components.js";
import { formatCount } from "../lib/format.js";
import { findKind } from "../lib/kinds.js";
import { onChanges } from "../lib/live.js";
import { useQuery } from "../lib/query.js";
import { listResources } from "../lib/resources.js";
import { makeHref, replaceQuery } from "../lib/router.js";
import { isInRange } from "../lib/scales.js";
import { html, useEffect, useMemo, useState } from "../lib/ui.js";
import { AxesForm, makeAxes } from "./compare/axes.js";
import { Parallel } from "./compare/parallel.js";
import { makeCharts, RunReader } from "./compare/runs.js";
import { ScatterPlot } from "./compare/scatter.js";
import { findSource, MAX_RUNS, SOURCES } from "./compare/sources.js";

const MAX_CHOICES = 200; // jobs or other resources from which the user chooses

export function Page({ query }) {
  const { name, source, selection } = findSource(query);
  const options = Object.entries(SOURCES).map(([key, { title }]) => [key, title]);
  return html`
    <${Heading}>Compare runs<//>
    <div class="filters">
      <${Select} label="Runs" value=${name} options=${options} onChange=${(key) => replaceQuery({ source: key === "jobs" ? "" : key })} />
      ${source.type && html`<${ResourceChoice} key=${source.type} ...${source} query=${query} />`}
    </div>
    ${name === "jobs" && html`<${JobChoice} query=${query} names=${selection.split(",").filter(Boolean)} />`}
    ${selection && html`<${Comparison} key=${`${name} ${selection}`} query=${query} source=${source} selection=${selection} />`}
  `;
}

/** Lets the user choose the tuning job, experiment or pipeline whose runs are compared. */
function ResourceChoice({ type, label, query }) {
  const kind = findKind(type);
  const load = (signal) => listResources([kind], { name: "", status: "" }, MAX_CHOICES, signal);
  const { data, error } = useQuery(load, [type], (change) => change.kind === type);
  const names = [...new Set([query.of, ...(data?.rows ?? []).map((row) => row.name)])].filter(Boolean);
  return html`
    <${Select} label=${label} value=${query.of ?? ""} onChange=${(name) => replaceQuery({ ...query, of: name })}
      options=${[["", "none"], ...names.map((name) => [name, name])]} />
    <${Problem} error=${error} />
  `;
}

function JobChoice({ query, names }) {
  const kind = findKind("training-job");
  const load = (signal) => listResources([kind], { name: query.name ?? "", status: "" }, MAX_CHOICES, signal);
  const { data, error } = useQuery(load, [query.name], (change) => change.kind === kind.type);
  const choose = (chosenNames) => replaceQuery({ ...query, jobs: [...new Set(chosenNames)].slice(0, MAX_RUNS).join() });
  const toggle = (name, isChosen) => choose(isChosen ? [...names, name] : names.filter((chosenName) => chosenName !== name));
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Field} label="Name contains">
        <input type="search" value=${query.name ?? ""} onInput=${(event) => replaceQuery({ ...query, name: event.target.value })} />
      <//>
      <button type="button" onClick=${() => choose([...names, ...(data?.rows ?? []).map((row) => row.name)])}>Choose all</button>
      <button type="button" onClick=${() => choose([])}>Choose none</button>
    </form>
    <${Problem} error=${error} />
    <fieldset class="choices" tabindex="0">
      <legend>Jobs (at most ${MAX_RUNS})</legend>
      ${data?.rows.map(({ name }) => html`
        <label class="check" key=${name}>
          <input type="checkbox" checked=${names.includes(name)} disabled=${!names.includes(name) && names.length === MAX_RUNS}
            onChange=${(event) => toggle(name, event.target.checked)} />
          ${name}
        </label>
      `)}
      ${data && !data.rows.length && html`<p>No training job matches.</p>`}
    </fieldset>
  `;
}

function useRuns(source, selection) {
  const reader = useMemo(() => new RunReader(source, selection), []);
  const result = useQuery((signal) => reader.read(signal), []);
  useEffect(() => onChanges((event) => reader.discardChanged(event) && result.reload()), []);
  return result;
}

function Comparison({ query, source, selection }) {
  const { data, error } = useRuns(source, selection);
  const [highlightedName, setHighlightedName] = useState("");
  const [settings, setSettings] = useState({});
  const changeAxis = (name, changes) => setSettings((old) => ({ ...old, [name]: { ...old[name], ...changes } }));
  const axes = useMemo(() => (data ? makeAxes(data, settings) : []), [data, settings]);
  const runs = useMemo(() => (data?.runs ?? []).filter((run) => isInAllRanges(run, axes)), [data, axes]);
  const highlightProps = { highlightedName, onHighlight: setHighlightedName };
  return html`
    <${Problem} error=${error} />
    ${!data && !error && html`<p role="status">Loading…</p>`}
    ${data && !data.runs.length && html`<p role="status">There are no runs.</p>`}
    ${data?.runs.length > 0 && html`
      <${RunTable} data=${data} runs=${runs} type=${source.runType} onHighlight=${setHighlightedName} />
      <h2>Parallel coordinates</h2>
      <${Select} label="Highlighted run" value=${highlightedName} onChange=${setHighlightedName}
        options=${[["", "none"], ...runs.map((run) => [run.name, run.name])]} />
      <p class="hint">Drag along an axis to choose a range of values. A click on the axis removes the range.</p>
      <${Parallel} runs=${data.runs} axes=${axes.filter((axis) => axis.isShown)} chosenNames=${new Set(runs.map((run) => run.name))}
        onRange=${(name, range) => changeAxis(name, { range })} ...${highlightProps} />
      <${AxesForm} axes=${axes} onChange=${changeAxis} />
      <${ScatterPlot} query=${query} runs=${runs} columns=${data.columns} ...${highlightProps} />
      <${Curves} query=${query} runs=${runs} highlightedName=${highlightedName} />
    `}
  `;
}

const isInAllRanges = (run, axes) => axes.every(({ name, scale, range }) => isInRange(scale, range, run.values[name] ?? ""));

/** Return a number in a short form. Parameters are texts, which are returned unchanged. */
const formatValue = (value) => (typeof value === "number" ? formatNumber(value) : value);

function RunTable({ data, runs, type, onHighlight }) {
  const kind = findKind(type);
  const columns = [
    { title: "Run", render: (run) => html`<a href=${makeHref(["jobs", type, run.name])}>${run.name}</a>` },
    { title: "Status", render: (run) => html`<${Status} kind=${kind} status=${run.status} />` },
    ...data.columns.map((name) => ({ title: name, isNumber: true, render: (run) => formatValue(run.values[name]) })),
  ];
  const highlightRow = (event) => onHighlight(runs[event.target.closest("tbody tr")?.sectionRowIndex]?.name ?? "");
  return html`
    <h2>Hyperparameters and final metrics</h2>
    <p role="status" class="hint">In the chosen ranges: ${runs.length} of ${formatCount(data.runs.length, "run")}.</p>
    <div class="runs" onMouseOver=${highlightRow} onFocusIn=${highlightRow} onMouseLeave=${() => onHighlight("")}>
      <${Table} caption="Hyperparameters and final metrics" columns=${columns} rows=${runs} getKey=${(run) => run.name}
        empty="No run is in the chosen ranges." />
    </div>
  `;
}

function Curves({ query, runs, highlightedName }) {
  const isByStep = query.axis === "step";
  const charts = useMemo(() => makeCharts(runs, isByStep), [runs, isByStep]);
  const axes = [["", "time since the start"], ["step", "iteration"]];
  return html`
    <h2>Metrics</h2>
    <${ChartOptions} query=${query}>
      <${Select} label="Horizontal axis" value=${query.axis ?? ""} options=${axes}
        onChange=${(axis) => replaceQuery({ ...query, axis })} />
    <//>
    ${!charts.length && html`<p>No metric has been recorded.</p>`}
    <div class="charts">
      ${charts.map((chart) => html`<${Chart} key=${chart.title} ...${chart} ...${readChartOptions(query)}
        xLabel=${isByStep ? "iteration" : "seconds"} highlightedLabel=${highlightedName} />`)}
    </div>
  `;
}
