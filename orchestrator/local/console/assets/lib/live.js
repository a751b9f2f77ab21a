// Changes of resources, logs and metrics, as the server reports them in a stream of server-sent events.
// All tabs of a browser share one stream, because browsers open at most six connections to a server: one tab reads the
// stream and passes the events on. When this tab is closed, another one takes over.

import { send } from "./api.js";

const NAME = "microjobs-changes";
const FIRST_DELAY = 1000;
const MAX_DELAY = 30000;

const listeners = new Set();
const channel = new BroadcastChannel(NAME);
channel.addEventListener("message", (message) => notify(message.data));

/** Call a function for each event; return a function that stops this. An event names what has changed:
 * `{changes: [{kind, name, arn, status}], logs: [{group, stream}], metrics: [dimensions], many}`. `many` means that
 * anything may have changed. A hidden tab gets no events, and one such event when it becomes visible. */
export function onChanges(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const MANY = { changes: [], logs: [], metrics: [], many: true };
let hasMissed = false;

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !hasMissed) return;
  hasMissed = false;
  notify(MANY);
});

/** Read the stream as soon as no other tab reads it. */
export function startChanges() {
  navigator.locks.request(NAME, readForever);
}

async function readForever() {
  for (let delay = FIRST_DELAY; ; delay = Math.min(delay * 2, MAX_DELAY)) {
    try {
      const response = await send("changes");
      publish(MANY); // changes while there was no stream
      delay = FIRST_DELAY;
      for await (const event of readEvents(response.body)) publish(event);
    } catch (error) {
      if (error.code === "NoSession") return;
      // Otherwise, the server has stopped, or too many consoles are open: try again.
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
  hasMissed ||= document.hidden;
  if (document.hidden) return;
  for (const listener of listeners) listener(event);
}
