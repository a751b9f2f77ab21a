// Lists of resources of several kinds, newest first, page by page.

import { call } from "./api.js";
import { shortenArn } from "./format.js";

const NAME_PART = /^[a-zA-Z0-9-]*$/;

/** Reads the resources of one kind. */
class KindReader {
  constructor(kind, filters) {
    this.kind = kind;
    this.filters = filters;
    this.buffer = [];
    this.token = null;
    this.hasMore = true;
  }

  /** Request the next page if the buffer is empty. */
  async fill(signal) {
    while (!this.buffer.length && this.hasMore) {
      const [items, token] = await (this.kind.parentType ? this.search(signal) : this.list(signal));
      this.buffer = items;
      this.token = token;
      this.hasMore = Boolean(token);
    }
  }

  async list(signal) {
    const { name, status } = this.filters;
    const members = {
      SortBy: "CreationTime",
      SortOrder: "Descending",
      ...(name && this.kind.filtersNames && { NameContains: name }),
      ...(status && { [this.kind.statusFilter]: status }),
      ...(this.token && { NextToken: this.token }),
    };
    const answer = await call("sagemaker", this.kind.operations.List, members, { signal });
    const items = answer[this.kind.summariesMember].map((item) => describe(this.kind, item));
    return [items.filter((item) => item.name.includes(name)), answer.NextToken];
  }

  /** Search for resources with a parent, such as executions: a List request would list those of only one parent. */
  async search(signal) {
    const { name, status } = this.filters;
    const filters = [
      ...(name ? [{ Name: this.kind.arnMember, Operator: "Contains", Value: name }] : []),
      ...(status ? [{ Name: this.kind.statusMember, Operator: "Equals", Value: status }] : []),
    ];
    const members = {
      Resource: this.kind.noun,
      SortBy: "CreationTime",
      SortOrder: "Descending",
      ...(filters.length && { SearchExpression: { Filters: filters } }),
      ...(this.token && { NextToken: this.token }),
    };
    const answer = await call("sagemaker", "Search", members, { signal });
    return [answer.Results.map((result) => describe(this.kind, result[this.kind.noun])), answer.NextToken];
  }
}

function describe(kind, item) {
  const arn = item[kind.arnMember];
  const id = item[kind.identifierMember];
  const name = item[kind.nameMember] ?? shortenArn(arn);
  const end = item[kind.lifecycle?.endMember] ?? null;
  return { kind, id, name, arn, status: item[kind.statusMember], created: item.CreationTime, end, item };
}

/** Return up to `count` resources of the kinds, newest first, and whether there are more. */
export async function listResources(kinds, filters, count, signal) {
  // the server refuses a filter with other characters
  if (!NAME_PART.test(filters.name)) return { rows: [], hasMore: false };
  const readers = kinds
    .filter((kind) => !filters.status || kind.lifecycle.statuses.includes(filters.status))
    .map((kind) => new KindReader(kind, filters));
  await Promise.all(readers.map((reader) => reader.fill(signal)));
  const rows = [];
  for (let reader = findNewest(readers); reader; reader = findNewest(readers)) {
    if (rows.length === count) return { rows, hasMore: true };
    rows.push(reader.buffer.shift());
    await reader.fill(signal);
  }
  return { rows, hasMore: false };
}

/** Return the reader with the newest resource; null if all resources have been read. */
function findNewest(readers) {
  const filledReaders = readers.filter((reader) => reader.buffer.length);
  return filledReaders.reduce(
    (newest, reader) => (newest && newest.buffer[0].created >= reader.buffer[0].created ? newest : reader), null,
  );
}
