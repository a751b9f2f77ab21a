// One execution of a pipeline: the graph of its steps, and their times.

import { call } from "../lib/api.js";
import { Heading, Problem, Status } from "../lib/components.js";
import { formatDuration } from "../lib/format.js";
import { findKind, isRunningStatus } from "../lib/kinds.js";
import { useNow } from "../lib/clock.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";
import { loadExecution } from "./execution/data.js";
import { Graph } from "./execution/graph.js";
import { Timeline } from "./execution/timeline.js";

export function Page({ params: { name, id } }) {
  const kind = findKind("pipeline-execution");
  const usesResource = (change) => change.name === id || change.name.startsWith(`${id}/`);
  const { data, error, reload } = useQuery((signal) => loadExecution(name, id, signal), [name, id], usesResource);
  const status = data?.execution.PipelineExecutionStatus;
  const isRunning = Boolean(data && isRunningStatus(kind, status));
  const now = useNow(isRunning);
  return html`
    <${Heading}>Execution ${id} of <a href=${makeHref(["pipelines", name])}>${name}</a><//>
    <${Problem} error=${error} />
    ${data && html`
      <div class="actions">
        <${Status} kind=${kind} status=${status} />
        <span>${formatDuration((isRunning ? now : data.end) - data.execution.CreationTime)}</span>
        <a href=${makeHref(["jobs", kind.type, data.execution.PipelineExecutionArn])}>Description</a>
        <${Actions} arn=${data.execution.PipelineExecutionArn} status=${status} reload=${reload} />
      </div>
      ${data.execution.FailureReason && html`
        <section aria-label="Failure reason" class="failure-reason">${data.execution.FailureReason}</section>
      `}
      <h2>Graph</h2>
      <${Graph} nodes=${data.nodes} />
      <h2>Steps</h2>
      <${Timeline} rows=${data.rows} start=${data.execution.CreationTime} end=${isRunning ? now : data.end} />
    `}
  `;
}

const VERBS_BY_STATUS = { Executing: ["Stop"], Failed: ["Retry"], Stopped: ["Retry"] };

function Actions({ arn, status, reload }) {
  const [error, setError] = useState(null);
  const perform = (verb) => {
    const members = { PipelineExecutionArn: arn, ClientRequestToken: crypto.randomUUID() };
    call("sagemaker", `${verb}PipelineExecution`, members).then(reload, setError);
  };
  return html`
    ${(VERBS_BY_STATUS[status] ?? []).map((verb) => html`<button key=${verb} onClick=${() => perform(verb)}>${verb}</button>`)}
    <${Problem} error=${error} />
  `;
}
