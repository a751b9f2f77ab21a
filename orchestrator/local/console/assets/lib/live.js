// Changes of resources, as the server reports them. Each open console reads one stream of server-sent events.
// A hidden page closes its stream, so that it occupies no thread of the server.

import { send } from "./api.js";

const FIRST_DELAY = 1000;
const MAX_DELAY = 30000;

const listeners = new Set();
let controller = null;
let delay = FIRST_DELAY;

/** Call a function for each event, `{changes: [{kind, name, status}], many}`; return a function that stops this.
 * `many` means that any resource may have changed. */
export function onChanges(listener) {
  listeners.add(listener);
  if (!controller) connect();
  return () => listeners.delete(listener);
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));

function disconnect() {
  controller?.abort();
  controller = null;
}

async function connect() {
  if (controller || document.hidden) return;
  const own = (controller = new AbortController());
  try {
    const response = await send("changes", {}, { signal: own.signal });
    notify({ changes: [], many: true }); // changes while there was no stream
    delay = FIRST_DELAY;
    for await (const event of readEvents(response.body)) notify(event);
  } catch {
    // The server stops, the page is hidden, or too many consoles are open: try again below.
  }
  if (controller !== own) return;
  controller = null;
  setTimeout(connect, delay);
  delay = Math.min(delay * 2, MAX_DELAY);
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

function notify(event) {
  for (const listener of listeners) listener(event);
}
