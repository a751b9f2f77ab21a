// An execution with the nodes of its graph and the rows of its timeline.

import { call } from "../../lib/api.js";
import { parseArn } from "../../lib/kinds.js";
import { makeHref } from "../../lib/router.js";
import { readNodes } from "./definition.js";

/** Return `{execution, nodes, rows, end}`; `end` is the time of the last change. */
export async function loadExecution(pipeline, id, signal) {
  const { PipelineArn: root } = await call("sagemaker", "DescribePipeline", { PipelineName: pipeline }, { signal });
  const members = { PipelineExecutionArn: `${root}/execution/${id}` };
  const [execution, definition, steps] = await Promise.all([
    call("sagemaker", "DescribePipelineExecution", members, { signal }),
    call("sagemaker", "DescribePipelineDefinitionForExecution", members, { signal }),
    listSteps(members, signal),
  ]);
  const nodes = readNodes(JSON.parse(definition.PipelineDefinition));
  const rows = steps.map((step) => makeRow(step, nodes));
  const end = Math.max(execution.LastModifiedTime, ...rows.map((row) => row.end ?? 0));
  return { execution, rows, end, nodes: nodes.map((node) => addProgress(node, rows)) };
}

async function listSteps(members, signal) {
  const steps = [];
  for (let token = {}; token; ) {
    const request = { ...members, SortOrder: "Ascending", MaxResults: 100, ...token };
    const answer = await call("sagemaker", "ListPipelineExecutionSteps", request, { signal });
    steps.push(...answer.PipelineExecutionSteps);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return steps;
}

function makeRow(step, nodes) {
  const suffix = step.IterationContext ? `-${step.IterationContext.Index}` : "";
  const node = step.StepName.slice(0, step.StepName.length - suffix.length);
  const source = step.CacheHitResult ?? step.SelectiveExecutionResult;
  return {
    name: step.StepName,
    node,
    type: nodes.find((one) => one.name === node)?.type ?? "",
    status: step.StepStatus,
    attempts: step.AttemptCount,
    start: step.StartTime,
    end: step.EndTime,
    failure: step.FailureReason,
    href: findHref(step.Metadata),
    isCacheHit: Boolean(step.CacheHitResult),
    reusedFrom: source?.SourcePipelineExecutionArn,
  };
}

/** Return the address of the page of the resource that a step created; null if there is no page. */
function findHref(metadata) {
  const arn = Object.values(metadata ?? {}).map((one) => one.Arn).find(Boolean);
  const found = arn && parseArn(arn);
  return found ? makeHref(["jobs", found.kind.type, found.id]) : null;
}

const ORDER = ["Failed", "Executing", "Starting", "Stopping", "Stopped", "Succeeded"];

/** Add the state of a step. A step in a loop has several rows: the first status of ORDER that one of them has counts. */
function addProgress(node, rows) {
  const own = rows.filter((row) => row.node === node.name);
  const status = ORDER.find((one) => own.some((row) => row.status === one)) ?? "";
  const notes = [
    own.length > 1 && `${own.filter((row) => row.end).length} of ${own.length} ended`,
    own.some((row) => row.isCacheHit) && "cache hit",
    own.length === 1 && own[0].attempts > 1 && `attempt ${own[0].attempts}`,
  ];
  return { ...node, status, note: notes.filter(Boolean).join(", "), href: own.length === 1 ? own[0].href : null };
}
