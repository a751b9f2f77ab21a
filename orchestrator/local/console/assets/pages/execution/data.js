// An execution with the nodes of its graph and the rows of its timeline.

import { call } from "../../lib/api.js";
import { parseArn } from "../../lib/kinds.js";
import { makeHref } from "../../lib/router.js";
import { readNodes } from "./definition.js";

/** Return `{execution, nodes, rows, end}`; `end` is the time of the last change. */
export async function loadExecution(pipeline, id, signal) {
  const { PipelineArn: pipelineArn } = await call("sagemaker", "DescribePipeline", { PipelineName: pipeline }, { signal });
  const members = { PipelineExecutionArn: `${pipelineArn}/execution/${id}` };
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
  const nodeName = step.StepName.slice(0, step.StepName.length - suffix.length);
  const source = step.CacheHitResult ?? step.SelectiveExecutionResult;
  return {
    name: step.StepName,
    nodeName,
    type: nodes.find((node) => node.name === nodeName)?.type ?? "",
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

/** Return the address of the page of the resource that a step created; null if there is no such page, for example for a model. */
function findHref(metadata) {
  const arn = Object.values(metadata ?? {}).map((resource) => resource.Arn).find(Boolean);
  const resource = arn && parseArn(arn);
  return resource ? makeHref(["jobs", resource.kind.type, resource.id]) : null;
}

const STATUS_ORDER = ["Failed", "Executing", "Starting", "Stopping", "Stopped", "Succeeded"];

/** Add the state of a step. A step in a loop has several rows. Its status is the first status in STATUS_ORDER that one
 * of the rows has. */
function addProgress(node, rows) {
  const nodeRows = rows.filter((row) => row.nodeName === node.name);
  const status = STATUS_ORDER.find((candidate) => nodeRows.some((row) => row.status === candidate)) ?? "";
  const notes = [
    nodeRows.length > 1 && `${nodeRows.filter((row) => row.end).length} of ${nodeRows.length} ended`,
    nodeRows.some((row) => row.isCacheHit) && "cache hit",
    nodeRows.length === 1 && nodeRows[0].attempts > 1 && `attempt ${nodeRows[0].attempts}`,
  ];
  return { ...node, status, note: notes.filter(Boolean).join(", "), href: nodeRows.length === 1 ? nodeRows[0].href : null };
}
