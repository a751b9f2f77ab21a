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
const LOG_START = "b/0"; // a position of `readLines`

/** @param chosenOffset the offset of the line that is shown first; by default, the end of the log is shown. */
export function Lines(props) {
  const [view, setView] = useState({ blocks: [], isAtEnd: false, endLoadCount: 0, error: null });
  const box = useRef(null);
  const reader = useRef(null);
  useEffect(() => {
    reader.current = new LogReader(props, setView, () => box.current !== null && isAtBottom(box.current));
    reader.current.start();
    const isOfThisLog = (change) => change.group === props.group && change.stream === props.stream;
    const stop = onChanges((event) => (event.isTruncated || event.logs.some(isOfThisLog)) && reader.current.follow());
    return () => {
      stop();
      reader.current.stop();
    };
  }, []);
  useKeptPosition(box, view, Boolean(props.chosenOffset));
  useEffect(() => {
    if (reader.current.hasMissedScroll) extend(box.current, reader.current);
  }, [view]);
  return html`
    <${Problem} error=${view.error} />
    <div class="log" role="log" aria-label="Output" tabindex="0" ref=${box} onScroll=${(event) => extend(event.currentTarget, reader.current)}>
      ${view.blocks.map((block) => html`<${Block} key=${block.start} block=${block} chosenOffset=${props.chosenOffset} />`)}
    </div>
    ${view.isAtEnd ? null : html`<p><button onClick=${() => (props.chosenOffset ? props.onEnd() : reader.current.loadEnd())}>Show the end</button></p>`}
  `;
}

/** Load more lines when the user scrolls to an edge, or after the current load if the reader is busy. */
function extend(box, reader) {
  reader.hasMissedScroll = reader.isBusy;
  if (reader.isBusy) return;
  if (box.scrollTop < EDGE_PIXELS) reader.loadBefore();
  if (isAtBottom(box) && !reader.isAtEnd) reader.loadAfter();
}

const isAtBottom = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < EDGE_PIXELS;

/** Keep the visible lines in place when blocks are added or removed; follow new lines if the end was visible. */
function useKeptPosition(box, view, hasChosenLine) {
  const layout = useRef(null);
  const oldView = useRef(view);
  layout.current = box.current?.firstChild && measure(box.current); // before the new blocks are in the page
  useLayoutEffect(() => {
    const [element, oldLayout] = [box.current, layout.current];
    const anchor = oldLayout && [...element.children].find((child) => oldLayout.tops.has(child.dataset.start));
    const chosenLine = !oldLayout && hasChosenLine && element.querySelector(".chosen");
    if (chosenLine) chosenLine.scrollIntoView({ block: "center" });
    else if (!anchor || view.endLoadCount > oldView.current.endLoadCount || (oldLayout.isAtBottom && oldView.current.isAtEnd)) element.scrollTop = element.scrollHeight;
    else element.scrollTop += anchor.getBoundingClientRect().top - oldLayout.tops.get(anchor.dataset.start);
    oldView.current = view;
  }, [view.blocks]);
}

/** Return the layout of the blocks: the vertical positions of their tops, and whether the box is scrolled to its bottom. */
function measure(box) {
  const tops = [...box.children].map((child) => [child.dataset.start, child.getBoundingClientRect().top]);
  return { tops: new Map(tops), isAtBottom: isAtBottom(box) };
}

/** A block of lines. Lines never change, so each line is rendered only once. */
function Block({ block, chosenOffset }) {
  const renderedLines = useRef([]);
  const isChosen = (index) => index === 0 && chosenOffset && block.start === `f/${chosenOffset}`;
  const newLines = block.lines.slice(renderedLines.current.length).map((line, index) => html`
    <div class=${isChosen(renderedLines.current.length + index) ? "chosen" : null} title=${new Date(line.timestamp).toISOString()}>
      ${renderAnsi(line.message)}
    </div>
  `);
  renderedLines.current = [...renderedLines.current, ...newLines];
  return html`<div data-start=${block.start}>${renderedLines.current}</div>`;
}

/** Reads a log in blocks. It loads blocks before and after the blocks that are already loaded. */
class LogReader {
  constructor({ group, stream, chosenOffset }, setView, isAtBottom) {
    Object.assign(this, { group, stream, chosenOffset, setView, isAtBottom, blocks: [], isAtEnd: false });
    this.endLoadCount = 0; // each time that the end is loaded, the page scrolls to it
    this.isBusy = this.hasMissedLines = this.hasMissedScroll = false;
    this.controller = new AbortController();
  }

  async start() {
    if (!this.chosenOffset) return this.loadEnd();
    await this.load(`f/${this.chosenOffset}`, (block) => (this.blocks = [block]));
    return this.loadBefore();
  }

  stop() {
    this.controller.abort();
  }

  loadEnd() {
    return this.load(undefined, (block) => {
      this.blocks = [block];
      this.isAtEnd = true;
      this.endLoadCount++;
    });
  }

  /** Handle new lines: load them if the end is visible. Otherwise, only show the button that loads the end. */
  follow() {
    this.hasMissedLines = this.isBusy;
    if (this.isBusy || !this.isAtEnd) return;
    if (this.isAtBottom()) this.loadAfter();
    else this.show({ isAtEnd: false });
  }

  loadBefore() {
    const firstBlock = this.blocks[0];
    if (!firstBlock || firstBlock.before === LOG_START) return;
    this.load(firstBlock.before, (block) => {
      if (!block.lines.length) return;
      this.isAtEnd &&= this.blocks.length < MAX_BLOCKS;
      this.blocks = [block, ...this.blocks].slice(0, MAX_BLOCKS);
    });
  }

  /** Load the next lines. If the log grows by more than a block between two requests, show its end instead. */
  async loadAfter() {
    const lastBlock = this.blocks.at(-1);
    if (!lastBlock) return;
    const wasAtEnd = this.isAtEnd;
    await this.load(lastBlock.after, (block) => {
      this.isAtEnd = block.lines.length < BLOCK_LINES;
      if (block.lines.length) this.blocks = append(this.blocks, block).slice(-MAX_BLOCKS);
    });
    if (wasAtEnd && !this.isAtEnd) this.loadEnd();
  }

  async load(position, addBlock) {
    if (this.isBusy) return;
    this.isBusy = true;
    const { signal } = this.controller;
    try {
      const block = await readLines(this.group, this.stream, position, BLOCK_LINES, signal);
      addBlock({ ...block, start: block.before.replace("b/", "f/") });
      this.show({ error: null });
    } catch (error) {
      if (!signal.aborted) this.show({ error });
    }
    this.isBusy = false;
    if (this.hasMissedLines) this.follow();
  }

  show({ isAtEnd = this.isAtEnd, error = null }) {
    this.isAtEnd = isAtEnd;
    this.setView({ blocks: this.blocks, isAtEnd, endLoadCount: this.endLoadCount, error });
  }
}

/** Add a block at the end. A small block becomes a part of the last block. */
function append(blocks, block) {
  const lastBlock = blocks.at(-1);
  if (lastBlock.lines.length + block.lines.length > BLOCK_LINES) return [...blocks, block];
  return [...blocks.slice(0, -1), { ...lastBlock, after: block.after, lines: [...lastBlock.lines, ...block.lines] }];
}
