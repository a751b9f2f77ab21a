// Changes of resources, logs and metrics, as the server reports them in a stream of server-sent events. All tabs of a
// browser share one stream, because browsers open at most six connections to a server: one tab reads the stream and
// sends the events to the other tabs. When this tab is closed, another tab reads the stream.

import { send } from "./api.js";

const NAME = "microjobs-changes"; // the name of the channel between tabs, and of the lock of the tab that reads
const MIN_DELAY_MS = 1000;
const MAX_DELAY_MS = 30000;

const listeners = new Set();
const channel = new BroadcastChannel(NAME);
channel.addEventListener("message", (message) => notify(message.data));

/** Call a function for each event; return a function that removes the listener.
 *
 * An event names what has changed: `{changes: [{kind, name, arn, status}], logs: [{group, stream}], metrics:
 * [dimensions], isTruncated}`. If `isTruncated` is true, the lists are empty, and anything may have changed. A hidden
 * tab gets no events. When it becomes visible, it gets an event with `isTruncated`. */
export function onChanges(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const UNKNOWN_CHANGES = { changes: [], logs: [], metrics: [], isTruncated: true };
let hasMissedEvents = false;

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !hasMissedEvents) return;
  hasMissedEvents = false;
  notify(UNKNOWN_CHANGES);
});

/** Read the stream as soon as no other tab reads it. */
export function startFeed() {
  navigator.locks.request(NAME, readForever);
}

async function readForever() {
  for (let delay = MIN_DELAY_MS; ; delay = Math.min(delay * 2, MAX_DELAY_MS)) {
    try {
      const response = await send("changes");
      publish(UNKNOWN_CHANGES); // report the changes that happened while there was no stream
      delay = MIN_DELAY_MS;
      for await (const event of readEvents(response.body)) publish(event);
    } catch (error) {
      if (error.code === "NoSession") return;
      // The server has stopped, or too many consoles are open: try again.
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const events = (text + part.value).split("\n\n");
    text = events.pop();
    for (const event of events) if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
  }
}

function publish(event) {
  channel.postMessage(event);
  notify(event);
}

function notify(event) {
  hasMissedEvents ||= document.hidden;
  if (document.hidden) return;
  for (const listener of listeners) listener(event);
}
