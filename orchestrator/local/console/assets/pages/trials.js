// One tuning job: the objective of its trials, the best trial so far, and the importance of its parameters.

import { call } from "../lib/api.js";
import { Chart, formatNumber } from "../lib/chart.js";
import { Heading, Problem, Status, Table } from "../lib/components.js";
import { formatDuration } from "../lib/format.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html } from "../lib/ui.js";
import { findImportance } from "./trials/importance.js";

export function Page({ params: { id } }) {
  const kind = findKind("hyper-parameter-tuning-job");
  const usesResource = (change) => change.name === id || (change.kind === "training-job" && change.name.startsWith(`${id}-`));
  const { data, error } = useQuery((signal) => load(id, signal), [id], usesResource);
  const job = data?.job;
  return html`
    <${Heading}>Trials of ${id}<//>
    <${Problem} error=${error} />
    ${data && html`
      <div class="actions">
        <${Status} kind=${kind} status=${job.HyperParameterTuningJobStatus} />
        <span>${data.objective.Type} ${data.objective.MetricName}</span>
        <span>${describeCounts(job.TrainingJobStatusCounters)}</span>
        <a href=${makeHref(["jobs", kind.type, id])}>Description</a>
        <a href=${makeHref(["compare"], { source: "tuning", of: id })}>Compare</a>
      </div>
      ${data.best && html`<p>Best trial: ${makeLink(data.best)} with <b>${formatNumber(data.best.value)}</b></p>`}
      ${data.curves && html`<${Chart} title=${`${data.objective.MetricName} by trial`} curves=${data.curves} xLabel="Trial" />`}
      <${Importance} rows=${data.importance} />
      <h2>Trials</h2>
      <${Table} caption="Trials" columns=${makeColumns(data)} rows=${data.trials} getKey=${(row) => row.name}
        empty="No trial has started." />
    `}
  `;
}

async function load(id, signal) {
  const members = { HyperParameterTuningJobName: id };
  const job = await call("sagemaker", "DescribeHyperParameterTuningJob", members, { signal });
  const objective = job.HyperParameterTuningJobConfig.HyperParameterTuningJobObjective;
  const trials = (await listTrials(members, signal)).map(makeTrial);
  const trialsWithValue = trials.filter((trial) => trial.value !== undefined);
  const isBetter = objective.Type === "Minimize" ? (first, second) => first < second : (first, second) => first > second;
  const parameters = [...new Set(trials.flatMap((trial) => Object.keys(trial.parameters)))].sort();
  return {
    job,
    objective,
    parameters,
    best: trialsWithValue.reduce((best, trial) => (best && !isBetter(trial.value, best.value) ? best : trial), null),
    curves: trialsWithValue.length ? makeCurves(trialsWithValue, isBetter) : null,
    importance: findImportance(parameters, trialsWithValue),
    trials: [...trialsWithValue].sort((first, second) => (isBetter(first.value, second.value) ? -1 : 1)).concat(
      trials.filter((trial) => trial.value === undefined),
    ),
  };
}

async function listTrials(members, signal) {
  const jobs = [];
  for (let token = {}; token; ) {
    const request = { ...members, SortBy: "CreationTime", SortOrder: "Ascending", MaxResults: 100, ...token };
    const answer = await call("sagemaker", "ListTrainingJobsForHyperParameterTuningJob", request, { signal });
    jobs.push(...answer.TrainingJobSummaries);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return jobs;
}

const makeTrial = (job, index) => ({
  number: index + 1,
  name: job.TrainingJobName,
  status: job.TrainingJobStatus,
  value: job.FinalHyperParameterTuningJobObjectiveMetric?.Value,
  parameters: job.TunedHyperParameters ?? {},
  seconds: job.TrainingEndTime - job.TrainingStartTime,
});

/** Return the curves of the trials' values and of the best value so far. */
function makeCurves(trialsWithValue, isBetter) {
  const x = trialsWithValue.map((trial) => trial.number);
  const y = trialsWithValue.map((trial) => trial.value);
  let best = y[0];
  const bestSoFar = y.map((value) => (best = isBetter(value, best) ? value : best));
  return [{ label: "trial", x, y }, { label: "best so far", x, y: bestSoFar }];
}

const describeCounts = (counts) =>
  [["completed", counts.Completed], ["running", counts.InProgress], ["failed", counts.NonRetryableError], ["stopped", counts.Stopped]]
    .filter(([, count]) => count)
    .map(([word, count]) => `${count} ${word}`)
    .join(", ");

const makeLink = (trial) => html`<a href=${makeHref(["jobs", "training-job", trial.name])}>${trial.name}</a>`;

const makeColumns = ({ objective, parameters }) => [
  { title: "Trial", render: makeLink },
  { title: "Number", isNumber: true, render: (row) => row.number },
  { title: "Status", render: (row) => html`<${Status} kind=${findKind("training-job")} status=${row.status} />` },
  { title: objective.MetricName, isNumber: true, render: (row) => formatNumber(row.value) },
  ...parameters.map((name) => ({ title: name, isNumber: true, render: (row) => shorten(row.parameters[name]) })),
  { title: "Duration", isNumber: true, render: (row) => formatDuration(row.seconds) },
];

const shorten = (text) => (text === undefined || text === "" || Number.isNaN(Number(text)) ? text : formatNumber(Number(text)));

const IMPORTANCE_COLUMNS = [
  { title: "Parameter", render: (row) => row.name },
  { title: "Importance", isNumber: true, render: (row) => row.importance.toFixed(2) },
  {
    title: "Bar",
    render: (row) => html`<div class="bar"><div class="active" style=${{ width: `${row.importance * 100}%` }}></div></div>`,
  },
];

const Importance = ({ rows }) =>
  rows.length === 0 ? null : html`
    <h2>Importance of parameters</h2>
    <p class="hint">1: the parameter alone determines the order of the trials. 0: it has no simple effect.</p>
    <${Table} caption="Importance of parameters" columns=${IMPORTANCE_COLUMNS} rows=${rows} getKey=${(row) => row.name} />
  `;
