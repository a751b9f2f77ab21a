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

export function isActive(kind, status) {
  return kind.lifecycle.transitional.includes(status) || (kind.lifecycle.isLasting && status === kind.lifecycle.success);
}

/** Return how a status is shown: `success`, `active`, `failure` or `neutral`. */
export function classifyStatus(kind, status) {
  if (status === kind?.lifecycle?.success) return "success";
  if (kind?.lifecycle?.transitional.includes(status)) return "active";
  return status?.includes("Fail") ? "failure" : "neutral";
}
