// A comparison of training jobs: a table of hyperparameters and final metrics, overlaid curves, and a scatter plot.

import { Chart } from "../lib/chart.js";
import { Field, Heading, Problem, Select, Status, Table } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { listResources } from "../lib/resources.js";
import { makeHref, replaceQuery } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { loadRuns } from "./compare/data.js";
import { Scatter } from "./compare/scatter.js";

const MAX_CHOICES = 100;
const MAX_RUNS = 16;

export function Page({ query }) {
  const names = (query.jobs ?? "").split(",").filter(Boolean).slice(0, MAX_RUNS);
  return html`
    <${Heading}>Compare training jobs<//>
    <${Choice} query=${query} names=${names} />
    ${names.length > 0 && html`<${Comparison} key=${names.join()} query=${query} names=${names} />`}
  `;
}

function Choice({ query, names }) {
  const kind = findKind("training-job");
  const load = (signal) => listResources([kind], { name: query.name ?? "", status: "" }, MAX_CHOICES, signal);
  const { data, error } = useQuery(load, [query.name], (one) => one.kind === kind.type);
  const toggle = (name, isChosen) => {
    const jobs = isChosen ? [...names, name] : names.filter((one) => one !== name);
    replaceQuery({ ...query, jobs: jobs.join() });
  };
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Field} label="Name contains">
        <input type="search" value=${query.name ?? ""} onInput=${(event) => replaceQuery({ ...query, name: event.target.value })} />
      <//>
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

function Comparison({ query, names }) {
  const isAffected = (one) => one.kind === "training-job" && names.includes(one.name);
  const hasPoints = (dimensions) => names.includes(dimensions.TrainingJobName);
  const { data, error } = useQuery((signal) => loadRuns(names, signal), [names.join()], isAffected, hasPoints);
  return html`
    <${Problem} error=${error} />
    ${data && html`
      <h2>Hyperparameters and final metrics</h2>
      <${Table} caption="Hyperparameters and final metrics" columns=${makeColumns(data.columns)} rows=${data.runs}
        getKey=${(run) => run.name} />
      <${Plot} query=${query} data=${data} />
      <h2>Metrics by time since the start</h2>
      ${!data.charts.length && html`<p>No metric has been recorded.</p>`}
      <div class="charts">
        ${data.charts.map((chart) => html`<${Chart} key=${chart.title} ...${chart} xLabel="seconds" />`)}
      </div>
    `}
  `;
}

const makeColumns = (columns) => [
  { title: "Job", render: (run) => html`<a href=${makeHref(["jobs", "training-job", run.name])}>${run.name}</a>` },
  { title: "Status", render: (run) => html`<${Status} kind=${findKind("training-job")} status=${run.status} />` },
  ...columns.map((name) => ({ title: name, isNumber: true, render: (run) => run.values[name] })),
];

function Plot({ query, data }) {
  const numeric = data.columns.filter((name) => data.runs.some((run) => Number.isFinite(Number(run.values[name] ?? NaN))));
  if (numeric.length < 2) return null;
  const options = numeric.map((name) => [name, name]);
  const across = numeric.includes(query.x) ? query.x : numeric[0];
  const up = numeric.includes(query.y) ? query.y : numeric.at(-1);
  const change = (changes) => replaceQuery({ ...query, x: across, y: up, ...changes });
  return html`
    <h2>Scatter plot</h2>
    <div class="filters">
      <${Select} label="Horizontal" value=${across} options=${options} onChange=${(name) => change({ x: name })} />
      <${Select} label="Vertical" value=${up} options=${options} onChange=${(name) => change({ y: name })} />
    </div>
    <${Scatter} runs=${data.runs} x=${across} y=${up} />
  `;
}
