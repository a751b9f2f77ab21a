// Log streams of jobs and endpoints: one per host.

import { call } from "./api.js";

const MAX_STREAMS = 1000;

export const getLogGroup = (kind, name) => kind.logs.group.replace("{name}", name);

/** Return the streams of a resource, `[{name, host, first, last}]`, with times in seconds; empty if there are none. */
export async function listStreams(kind, name, signal) {
  const request = { logGroupName: getLogGroup(kind, name), logStreamNamePrefix: kind.logs.prefix.replace("{name}", name) };
  const streams = [];
  for (let token = {}; token && streams.length < MAX_STREAMS; ) {
    const members = { ...request, ...token };
    const answer = await call("logs", "DescribeLogStreams", members, { signal }).catch(ignoreMissingGroup);
    streams.push(...answer.logStreams.map((stream) => describe(stream, request.logStreamNamePrefix)));
    token = answer.nextToken ? { nextToken: answer.nextToken } : null;
  }
  return streams;
}

function ignoreMissingGroup(error) {
  if (error.code === "ResourceNotFoundException") return { logStreams: [] };
  throw error;
}

function describe(stream, prefix) {
  const [first, last] = [stream.firstEventTimestamp, stream.lastEventTimestamp].map((time) => time && time / 1000);
  return { name: stream.logStreamName, host: stream.logStreamName.slice(prefix.length), first, last };
}
