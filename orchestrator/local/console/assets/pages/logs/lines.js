// A window of lines of a log. It starts at the end of the log, or at a chosen line, and grows in both directions. The
// page has at most `MAX_BLOCKS` blocks of lines, however long the log is.

import { renderAnsi } from "../../lib/ansi.js";
import { Problem } from "../../lib/components.js";
import { readLines } from "../../lib/logs.js";
import { html, useEffect, useRef, useState } from "../../lib/ui.js";

const BLOCK_LINES = 500;
const MAX_BLOCKS = 8;
const FOLLOW_INTERVAL = 1000;
const EDGE_PIXELS = 40;

export function Lines(props) {
  const [view, setView] = useState({ blocks: [], isAtEnd: false, error: null });
  const box = useRef(null);
  const reader = useRef(null);
  useEffect(() => {
    reader.current = new LogReader(props, setView);
    reader.current.start();
    return () => reader.current.stop();
  }, []);
  useEffect(() => reader.current.follow(props.isActive), [props.isActive]);
  useKeptPosition(box, view, Boolean(props.at));
  return html`
    <${Problem} error=${view.error} />
    <div class="log" role="log" aria-label="Output" tabindex="0" ref=${box} onScroll=${() => extend(box.current, reader.current)}>
      ${view.blocks.map((block) => html`<${Block} key=${block.start} block=${block} at=${props.at} />`)}
    </div>
    ${view.isAtEnd ? null : html`<p><button onClick=${() => (props.at ? props.onEnd() : reader.current.start())}>Show the end</button></p>`}
  `;
}

/** Load more lines when the reader scrolls to an edge. */
function extend(box, reader) {
  if (box.scrollTop < EDGE_PIXELS) reader.loadBefore();
  if (isAtBottom(box)) reader.loadAfter();
}

const isAtBottom = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < EDGE_PIXELS;

/** Keep the visible lines in place when blocks are added or removed; follow new lines if the end was visible. */
function useKeptPosition(box, view, hasChosenLine) {
  const before = useRef(null);
  const wasAtEnd = useRef(false);
  before.current = box.current?.firstChild && measure(box.current); // before the new blocks are in the page
  useEffect(() => {
    const [element, old] = [box.current, before.current];
    const anchor = old && [...element.children].find((child) => old.tops.has(child.dataset.start));
    const chosen = !old && hasChosenLine && element.querySelector(".chosen");
    if (chosen) chosen.scrollIntoView({ block: "center" });
    else if (!anchor || (old.isAtBottom && wasAtEnd.current)) element.scrollTop = element.scrollHeight;
    else element.scrollTop += anchor.getBoundingClientRect().top - old.tops.get(anchor.dataset.start);
    wasAtEnd.current = view.isAtEnd;
  }, [view.blocks]);
}

function measure(box) {
  const tops = [...box.children].map((child) => [child.dataset.start, child.getBoundingClientRect().top]);
  return { tops: new Map(tops), isAtBottom: isAtBottom(box) };
}

/** Some lines. They never change, so they are rendered once. */
function Block({ block, at }) {
  const rendered = useRef(null);
  rendered.current ??= block.lines.map((line, index) => html`
    <div class=${index === 0 && at && block.start === `f/${at}` ? "chosen" : null} title=${new Date(line.timestamp).toISOString()}>
      ${renderAnsi(line.message)}
    </div>
  `);
  return html`<div data-start=${block.start}>${rendered.current}</div>`;
}

/** Reads a log in blocks, before and after those that it has. */
class LogReader {
  constructor({ group, stream, at }, setView) {
    Object.assign(this, { group, stream, at, setView, blocks: [], isAtEnd: false, isBusy: false, timer: null });
    this.controller = new AbortController();
  }

  start() {
    this.load(this.at && `f/${this.at}`, (block) => {
      this.blocks = [block];
      this.isAtEnd = !this.at;
    }).then(() => this.at && this.loadBefore());
  }

  stop() {
    clearInterval(this.timer);
    this.controller.abort();
  }

  follow(isActive) {
    clearInterval(this.timer);
    if (isActive) this.timer = setInterval(() => document.hidden || !this.isAtEnd || this.loadAfter(), FOLLOW_INTERVAL);
    else if (this.isAtEnd) this.loadAfter();
  }

  loadBefore() {
    const first = this.blocks[0];
    if (!first || first.before === "b/0") return;
    this.load(first.before, (block) => {
      if (!block.lines.length) return;
      this.isAtEnd &&= this.blocks.length < MAX_BLOCKS;
      this.blocks = [block, ...this.blocks].slice(0, MAX_BLOCKS);
    });
  }

  loadAfter() {
    const last = this.blocks.at(-1);
    if (!last) return;
    this.load(last.after, (block) => {
      this.isAtEnd = block.lines.length < BLOCK_LINES;
      if (block.lines.length) this.blocks = [...this.blocks, block].slice(-MAX_BLOCKS);
    });
  }

  async load(position, use) {
    if (this.isBusy) return;
    this.isBusy = true;
    const { signal } = this.controller;
    try {
      const block = await readLines(this.group, this.stream, position, BLOCK_LINES, signal);
      use({ ...block, start: block.before.replace("b/", "f/") });
      this.setView({ blocks: this.blocks, isAtEnd: this.isAtEnd, error: null });
    } catch (error) {
      if (!signal.aborted) this.setView({ blocks: this.blocks, isAtEnd: this.isAtEnd, error });
    }
    this.isBusy = false;
  }
}
