// A window of lines of a log. It starts at the end of the log, or at a chosen line, and grows in both directions. The
// page has at most `MAX_BLOCKS` blocks of lines, however long the log is. New lines appear while the end is visible.

import { renderAnsi } from "../../lib/ansi.js";
import { Problem } from "../../lib/components.js";
import { onChanges } from "../../lib/live.js";
import { readLines } from "../../lib/logs.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../../lib/ui.js";

const BLOCK_LINES = 500;
const MAX_BLOCKS = 8;
const EDGE_PIXELS = 40;

export function Lines(props) {
  const [view, setView] = useState({ blocks: [], isAtEnd: false, jumps: 0, error: null });
  const box = useRef(null);
  const reader = useRef(null);
  useEffect(() => {
    reader.current = new LogReader(props, setView, () => box.current !== null && isAtBottom(box.current));
    reader.current.start();
    const isNew = (one) => one.group === props.group && one.stream === props.stream;
    const stop = onChanges((event) => (event.many || event.logs.some(isNew)) && reader.current.follow());
    return () => {
      stop();
      reader.current.stop();
    };
  }, []);
  useKeptPosition(box, view, Boolean(props.at));
  return html`
    <${Problem} error=${view.error} />
    <div class="log" role="log" aria-label="Output" tabindex="0" ref=${box} onScroll=${(event) => extend(event.currentTarget, reader.current)}>
      ${view.blocks.map((block) => html`<${Block} key=${block.start} block=${block} at=${props.at} />`)}
    </div>
    ${view.isAtEnd ? null : html`<p><button onClick=${() => (props.at ? props.onEnd() : reader.current.loadEnd())}>Show the end</button></p>`}
  `;
}

/** Load more lines when the reader scrolls to an edge. */
function extend(box, reader) {
  if (box.scrollTop < EDGE_PIXELS) reader.loadBefore();
  if (isAtBottom(box) && !reader.isAtEnd) reader.loadAfter();
}

const isAtBottom = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < EDGE_PIXELS;

/** Keep the visible lines in place when blocks are added or removed; follow new lines if the end was visible. */
function useKeptPosition(box, view, hasChosenLine) {
  const before = useRef(null);
  const earlier = useRef(view);
  before.current = box.current?.firstChild && measure(box.current); // before the new blocks are in the page
  useLayoutEffect(() => {
    const [element, old] = [box.current, before.current];
    const anchor = old && [...element.children].find((child) => old.tops.has(child.dataset.start));
    const chosen = !old && hasChosenLine && element.querySelector(".chosen");
    if (chosen) chosen.scrollIntoView({ block: "center" });
    else if (!anchor || view.jumps > earlier.current.jumps || (old.isAtBottom && earlier.current.isAtEnd)) element.scrollTop = element.scrollHeight;
    else element.scrollTop += anchor.getBoundingClientRect().top - old.tops.get(anchor.dataset.start);
    earlier.current = view;
  }, [view.blocks]);
}

function measure(box) {
  const tops = [...box.children].map((child) => [child.dataset.start, child.getBoundingClientRect().top]);
  return { tops: new Map(tops), isAtBottom: isAtBottom(box) };
}

/** Some lines. They never change, so each one is rendered once. */
function Block({ block, at }) {
  const rendered = useRef([]);
  const isChosen = (index) => index === 0 && at && block.start === `f/${at}`;
  const added = block.lines.slice(rendered.current.length).map((line, index) => html`
    <div class=${isChosen(rendered.current.length + index) ? "chosen" : null} title=${new Date(line.timestamp).toISOString()}>
      ${renderAnsi(line.message)}
    </div>
  `);
  rendered.current = [...rendered.current, ...added];
  return html`<div data-start=${block.start}>${rendered.current}</div>`;
}

/** Reads a log in blocks, before and after those that it has. */
class LogReader {
  constructor({ group, stream, at }, setView, isAtBottom) {
    Object.assign(this, { group, stream, at, setView, isAtBottom, blocks: [], isAtEnd: false, jumps: 0 });
    this.isBusy = this.isBehind = false;
    this.controller = new AbortController();
  }

  async start() {
    if (!this.at) return this.loadEnd();
    await this.load(`f/${this.at}`, (block) => (this.blocks = [block]));
    return this.loadBefore();
  }

  stop() {
    this.controller.abort();
  }

  loadEnd() {
    return this.load(undefined, (block) => {
      this.blocks = [block];
      this.isAtEnd = true;
      this.jumps++;
    });
  }

  /** Handle new lines: load them if the end is visible. Those who read earlier lines are not disturbed. */
  follow() {
    this.isBehind = this.isBusy;
    if (this.isBusy || !this.isAtEnd) return;
    if (this.isAtBottom()) this.loadAfter();
    else this.show({ isAtEnd: false });
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

  /** Load the next lines. If the log grows by more than a block between two requests, show its end instead of them. */
  async loadAfter() {
    const last = this.blocks.at(-1);
    if (!last) return;
    const wasAtEnd = this.isAtEnd;
    await this.load(last.after, (block) => {
      this.isAtEnd = block.lines.length < BLOCK_LINES;
      if (block.lines.length) this.blocks = append(this.blocks, block).slice(-MAX_BLOCKS);
    });
    if (wasAtEnd && !this.isAtEnd) this.loadEnd();
  }

  async load(position, use) {
    if (this.isBusy) return;
    this.isBusy = true;
    const { signal } = this.controller;
    try {
      const block = await readLines(this.group, this.stream, position, BLOCK_LINES, signal);
      use({ ...block, start: block.before.replace("b/", "f/") });
      this.show({ error: null });
    } catch (error) {
      if (!signal.aborted) this.show({ error });
    }
    this.isBusy = false;
    if (this.isBehind) this.follow();
  }

  show({ isAtEnd = this.isAtEnd, error = null }) {
    this.isAtEnd = isAtEnd;
    this.setView({ blocks: this.blocks, isAtEnd, jumps: this.jumps, error });
  }
}

/** Add a block at the end. A small one becomes a part of the last block. */
function append(blocks, block) {
  const last = blocks.at(-1);
  if (last.lines.length + block.lines.length > BLOCK_LINES) return [...blocks, block];
  return [...blocks.slice(0, -1), { ...last, after: block.after, lines: [...last.lines, ...block.lines] }];
}
