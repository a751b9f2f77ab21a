// The kinds of resources that this server has, such as training jobs.

import { send } from "./api.js";

let kinds = [];

export async function loadKinds() {
  kinds = await (await send("kinds")).json();
}

/** Return the kinds of resources that run: jobs, endpoints and executions. */
export const listRunningKinds = () => kinds.filter((kind) => kind.lifecycle);

/** Return the kind with a type such as `training-job`; undefined if there is no such kind. */
export const findKind = (type) => kinds.find((kind) => kind.type === type);

/** Return whether a change, as the server reports it, belongs to the resource with an identifier. */
export const isChangeOf = (kind, id, change) =>
  change.kind === kind.type && (kind.isIdentifiedByArn ? change.arn : change.name) === id;

/** Return the kind and the identifier of the resource with an ARN; null if the console has no page for it. */
export function parseArn(arn) {
  const [type, ...rest] = arn.split(":").slice(5).join(":").split("/");
  const part = rest.length > 1 && kinds.find((kind) => kind.partOf === type);
  const kind = part || findKind(type);
  return kind?.lifecycle ? { kind, id: kind.isIdentifiedByArn ? arn : rest.join("/") } : null;
}

/** Return whether hosts run in a status. An endpoint is also active if `classifyStatus` returns `success`. */
export function isActive(kind, status) {
  return kind.lifecycle.active.includes(status);
}

/** Return how a status is shown: `success`, `active`, `failure` or `neutral`. */
export function classifyStatus(kind, status) {
  if (kind?.lifecycle?.transitional.includes(status)) return "active";
  if (status === kind?.lifecycle?.success || kind?.lifecycle?.active.includes(status)) return "success";
  return status?.includes("Fail") ? "failure" : "neutral";
}
