// Log streams of jobs and endpoints: one per host.

import { call, send } from "./api.js";

const MAX_STREAMS = 1000;

export const getLogGroup = (kind, name) => kind.logs.group.replace("{name}", name);

/** Return whether a log stream, `{group, stream}`, belongs to a resource. */
export const isLogOf = (kind, name, { group, stream }) =>
  group === getLogGroup(kind, name) && stream.startsWith(kind.logs.prefix.replace("{name}", name));

/** Return the streams of a resource, `[{name, host, firstTime, lastTime}]`. The times of the first and the last line are
 * in seconds since 1970. */
export async function listStreams(kind, name, signal) {
  const request = { logGroupName: getLogGroup(kind, name), logStreamNamePrefix: kind.logs.prefix.replace("{name}", name) };
  if (!request.logStreamNamePrefix) delete request.logStreamNamePrefix;
  const streams = [];
  for (let token = {}; token && streams.length < MAX_STREAMS; ) {
    const members = { ...request, ...token };
    const answer = await call("logs", "DescribeLogStreams", members, { signal }).catch(ignoreMissingGroup);
    streams.push(...answer.logStreams.map((stream) => describe(stream, request.logStreamNamePrefix ?? "")));
    token = answer.nextToken ? { nextToken: answer.nextToken } : null;
  }
  return streams.map((stream) => ({ ...stream, host: shorten(stream, streams) }));
}

/** Return a host's name without the time of its start, unless several hosts have the same name without this time. */
function shorten(stream, streams) {
  const strip = (host) => host.replace(/-\d{10,}$/, "");
  const name = strip(stream.host);
  return streams.filter((other) => strip(other.host) === name).length > 1 ? stream.host : name;
}

function ignoreMissingGroup(error) {
  if (error.code === "ResourceNotFoundException") return { logStreams: [] };
  throw error;
}

function describe(stream, prefix) {
  const [firstTime, lastTime] = [stream.firstEventTimestamp, stream.lastEventTimestamp].map((time) => time && time / 1000);
  return { name: stream.logStreamName, host: stream.logStreamName.slice(prefix.length), firstTime, lastTime };
}

/** Read lines: after the position `f/<offset>`, before the position `b/<offset>`, or the last lines if there is no
 * position. Return `{lines, before, after}`, with the positions from which the neighbouring lines can be read. */
export async function readLines(group, stream, position, limit, signal) {
  const members = { logGroupName: group, logStreamName: stream, limit, ...(position && { nextToken: position }) };
  const answer = await call("logs", "GetLogEvents", members, { signal });
  return { lines: answer.events, before: answer.nextBackwardToken, after: answer.nextForwardToken };
}

/** Yield the lines that contain a text, in groups: `[{timestamp, message, offset}]`. A group may be empty. */
export async function* findLines(group, stream, text, signal) {
  const members = { logGroupName: group, logStreamNames: [stream], filterPattern: `"${text.replaceAll('"', "")}"` };
  for (let token = {}; token; ) {
    const answer = await call("logs", "FilterLogEvents", { ...members, limit: 500, ...token }, { signal });
    yield answer.events.map((event) => ({ ...event, offset: event.eventId.slice(event.eventId.lastIndexOf("/") + 1) }));
    token = answer.nextToken ? { nextToken: answer.nextToken } : null;
  }
}

/** Let the browser store a stream in a file. */
export async function downloadLog(group, stream) {
  const { path } = await (await send("logs", { group, stream })).json();
  const link = Object.assign(document.createElement("a"), { href: `api/${path}`, download: "" });
  link.click();
}
