// The kinds of resources that this server has, such as training jobs.

import { MAX_RETRIES, send } from "./api.js";

let kinds = [];

export async function loadKinds() {
  kinds = await (await send("kinds", {}, { retries: MAX_RETRIES })).json();
}

/** Return the kinds whose resources have a life cycle, such as jobs, endpoints and executions. */
export const listLifecycleKinds = () => kinds.filter((kind) => kind.lifecycle);

/** Return the kind with a type such as `training-job`; undefined if there is no such kind. */
export const findKind = (type) => kinds.find((kind) => kind.type === type);

/** Return whether a change that the server reports belongs to the resource with an identifier. */
export const isChangeOf = (kind, id, change) =>
  change.kind === kind.type && (kind.isIdentifiedByArn ? change.arn : change.name) === id;

/** Return the kind and the identifier of the resource with an ARN; null for kinds that do not run, such as models. */
export function parseArn(arn) {
  const [type, ...names] = arn.split(":").slice(5).join(":").split("/");
  // the ARN of a child begins with the ARN of its parent, such as `pipeline/my-pipeline/execution/abc`
  const childKind = names.length > 1 && kinds.find((kind) => kind.parentType === type);
  const kind = childKind || findKind(type);
  return kind?.lifecycle ? { kind, id: kind.isIdentifiedByArn ? arn : names.join("/") } : null;
}

/** Return whether a resource with a status is running. An endpoint in service is running, although `classifyStatus`
 * returns `success`. */
export function isRunningStatus(kind, status) {
  return kind.lifecycle.activeStatuses.includes(status);
}

/** Return how a status is shown: `success`, `active`, `failure` or `neutral`. */
export function classifyStatus(kind, status) {
  if (kind?.lifecycle?.transitionalStatuses.includes(status)) return "active";
  if (status === kind?.lifecycle?.successStatus || kind?.lifecycle?.activeStatuses.includes(status)) return "success";
  return status?.includes("Fail") ? "failure" : "neutral";
}
