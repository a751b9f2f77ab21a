// The sources of the runs that a user compares. A run is a training job or a trial component.

import { call } from "../../lib/api.js";
import { findKind, isRunningStatus } from "../../lib/kinds.js";

export const MAX_RUNS = 200;

const TRAINING_JOB = "training-job";

/** The sources, by the value of `source` in the URL. The user chooses a resource of the kind `type`, in a field with
 * the label `label`. The runs of this resource are of the kind `runType`. `list` returns the names of the runs.
 * `isListChange` returns whether a change of a resource may change this list. */
export const SOURCES = {
  jobs: {
    title: "training jobs",
    runType: TRAINING_JOB,
    isListChange: () => false,
    list: async (names) => names.split(",").filter(Boolean),
  },
  tuning: {
    title: "trials of a tuning job",
    label: "Tuning job",
    type: "hyper-parameter-tuning-job",
    runType: TRAINING_JOB,
    isListChange: (change, name) => change.kind === TRAINING_JOB && change.name.startsWith(`${name}-`),
    list: listTrials,
  },
  experiment: {
    title: "trial components of an experiment",
    label: "Experiment",
    type: "experiment",
    runType: "experiment-trial-component",
    isListChange: (change) => change.kind.startsWith("experiment-trial"),
    list: (name, signal) => listNames("ListTrialComponents", "TrialComponent", { ExperimentName: name }, signal),
  },
  pipeline: {
    title: "training jobs of a pipeline's executions",
    label: "Pipeline",
    type: "pipeline",
    runType: TRAINING_JOB,
    isListChange: (change) => change.kind.startsWith("pipeline-execution"),
    list: listJobsOfPipeline,
  },
};

/** Return the source that the query of a URL names, and the selection: names of jobs, or the name of a resource. */
export function findSource(query) {
  const name = SOURCES[query.source] ? query.source : "jobs";
  return { name, source: SOURCES[name], selection: (name === "jobs" ? query.jobs : query.of) ?? "" };
}

/** Return the items of all pages of a List operation, at most MAX_RUNS. */
async function listAll(operation, itemsMember, members, signal) {
  const items = [];
  for (let token = {}; token && items.length < MAX_RUNS; ) {
    const answer = await call("sagemaker", operation, { ...members, MaxResults: 100, ...token }, { signal });
    items.push(...answer[itemsMember]);
    token = answer.NextToken ? { NextToken: answer.NextToken } : null;
  }
  return items.slice(0, MAX_RUNS);
}

async function listNames(operation, noun, members, signal) {
  const sorting = { SortBy: "CreationTime", SortOrder: "Descending" };
  return (await listAll(operation, `${noun}Summaries`, { ...sorting, ...members }, signal)).map((summary) => summary[`${noun}Name`]);
}

function listTrials(name, signal) {
  return listNames("ListTrainingJobsForHyperParameterTuningJob", "TrainingJob", { HyperParameterTuningJobName: name }, signal);
}

const jobsByExecution = new Map(); // the jobs of ended executions, by the ARNs of the executions

async function listJobsOfPipeline(name, signal) {
  const members = { PipelineName: name, SortBy: "CreationTime", SortOrder: "Descending" };
  const executions = await listAll("ListPipelineExecutions", "PipelineExecutionSummaries", members, signal);
  const jobs = [];
  for (const execution of executions) {
    jobs.push(...(jobsByExecution.get(execution.PipelineExecutionArn) ?? (await listJobsOfExecution(execution, signal))));
    if (jobs.length >= MAX_RUNS) break;
  }
  return [...new Set(jobs)].slice(0, MAX_RUNS); // a step with a cache hit names the job of an earlier execution
}

async function listJobsOfExecution({ PipelineExecutionArn: arn, PipelineExecutionStatus: status }, signal) {
  const steps = await listAll("ListPipelineExecutionSteps", "PipelineExecutionSteps", { PipelineExecutionArn: arn }, signal);
  const jobs = steps.map((step) => step.Metadata?.TrainingJob?.Arn.split("/").pop()).filter(Boolean);
  if (!isRunningStatus(findKind("pipeline-execution"), status)) jobsByExecution.set(arn, jobs);
  return jobs;
}
