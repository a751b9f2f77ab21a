// One pipeline: its executions, and a form that starts an execution.

import { call } from "../lib/api.js";
import { Field, Heading, Problem, Status, Table, Time } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

const MAX_ROWS = 100;

const getId = (arn) => arn.split("/").pop();

export function Page({ params: { name } }) {
  const usesResource = (change) => change.kind.startsWith("pipeline-execution") || (change.kind === "pipeline" && change.name === name);
  const { data, error } = useQuery((signal) => load(name, signal), [name], usesResource);
  return html`
    <${Heading}>${name}<//>
    <${Problem} error=${error} />
    ${data && html`
      <p><a href=${makeHref(["code", "pipeline", name])}>As code</a></p>
      <h2 id="start">Start an execution</h2>
      <${StartForm} name=${name} parameters=${data.parameters} />
      <h2>Executions</h2>
      <p><a href=${makeHref(["compare"], { source: "pipeline", of: name })}>Compare the training jobs of all executions</a></p>
      <${Table} caption="Executions" columns=${makeColumns(name)} rows=${data.executions}
        getKey=${(row) => row.PipelineExecutionArn} empty="The pipeline has not been executed." />
    `}
  `;
}

async function load(name, signal) {
  const members = { PipelineName: name, SortBy: "CreationTime", SortOrder: "Descending", MaxResults: MAX_ROWS };
  const [pipeline, executions] = await Promise.all([
    call("sagemaker", "DescribePipeline", { PipelineName: name }, { signal }),
    call("sagemaker", "ListPipelineExecutions", members, { signal }),
  ]);
  const { Parameters: parameters = [] } = JSON.parse(pipeline.PipelineDefinition);
  return { parameters, executions: executions.PipelineExecutionSummaries };
}

const makeColumns = (name) => [
  {
    title: "Execution",
    render: ({ PipelineExecutionArn: arn }) => html`<a href=${makeHref(["pipelines", name, getId(arn)])}>${getId(arn)}</a>`,
  },
  {
    title: "Status",
    render: (row) => html`<${Status} kind=${findKind("pipeline-execution")} status=${row.PipelineExecutionStatus} />`,
  },
  { title: "Started", render: (row) => html`<${Time} seconds=${row.StartTime} />` },
  { title: "Description", render: (row) => row.PipelineExecutionDisplayName ?? row.PipelineExecutionDescription },
  { title: "Failure reason", render: (row) => row.PipelineExecutionFailureReason },
];

function StartForm({ name, parameters }) {
  const [error, setError] = useState(null);
  const start = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    try {
      location.hash = makeHref(["pipelines", name, await startExecution(name, parameters, form)]);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`
    <form class="filters" aria-labelledby="start" onSubmit=${start}>
      ${parameters.map((parameter) => html`
        <${Field} key=${parameter.Name} label=${`${parameter.Name} (${parameter.Type})`}><${Value} ...${parameter} /><//>
      `)}
      <button>Start</button>
    </form>
    <${Problem} error=${error} />
  `;
}

function Value({ Name: name, DefaultValue: value, EnumValues: choices }) {
  if (!choices) return html`<input name=${name} defaultValue=${value === undefined ? "" : String(value)} />`;
  return html`<select name=${name}>${choices.map((choice) => html`<option selected=${choice === value}>${choice}</option>`)}</select>`;
}

/** Start an execution; return its identifier. A field that still has the default value is not sent. */
async function startExecution(name, parameters, form) {
  const values = parameters
    .map((parameter) => ({ Name: parameter.Name, Value: form.get(parameter.Name), initial: parameter.DefaultValue }))
    .filter(({ Value, initial }) => Value !== String(initial ?? ""))
    .map(({ Name, Value }) => ({ Name, Value }));
  const members = { PipelineName: name, ClientRequestToken: crypto.randomUUID(), PipelineParameters: values };
  return getId((await call("sagemaker", "StartPipelineExecution", members)).PipelineExecutionArn);
}
