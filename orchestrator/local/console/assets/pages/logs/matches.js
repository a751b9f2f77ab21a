// The lines of a log that contain a text.

import { Problem } from "../../lib/components.js";
import { formatCount } from "../../lib/format.js";
import { findLines } from "../../lib/logs.js";
import { html, useEffect, useState } from "../../lib/ui.js";

const MAX_MATCHES = 200;

export function Matches({ group, stream, text, onChoose }) {
  const [state, setState] = useState({ matches: [], isDone: false, error: null });
  useEffect(() => {
    const controller = new AbortController();
    search(group, stream, text, setState, controller.signal);
    return () => controller.abort();
  }, []);
  const { matches, isDone, error } = state;
  const summary = matches.length === MAX_MATCHES
    ? `The first ${MAX_MATCHES} lines that contain “${text}” are shown.`
    : `${formatCount(matches.length, "line")} ${matches.length === 1 ? "contains" : "contain"} “${text}”.`;
  return html`
    <section aria-label="Lines that were found" class="matches">
      <p role="status" class="hint">${isDone ? summary : `Searching… ${formatCount(matches.length, "line")} found`}</p>
      <${Problem} error=${error} />
      <ol>${matches.map((match) => html`
        <li key=${match.offset}><button class="link" onClick=${() => onChoose(match.offset)}>${match.message}</button></li>
      `)}</ol>
    </section>
  `;
}

async function search(group, stream, text, setState, signal) {
  let matches = [];
  try {
    for await (const newMatches of findLines(group, stream, text, signal)) {
      matches = [...matches, ...newMatches].slice(0, MAX_MATCHES);
      setState({ matches, isDone: false, error: null });
      if (matches.length === MAX_MATCHES) break;
    }
    setState({ matches, isDone: true, error: null });
  } catch (error) {
    if (!signal.aborted) setState({ matches, isDone: true, error });
  }
}
