// Parallel coordinates: one vertical axis per hyperparameter or metric, and one line per run. The pointer highlights the
// nearest line. Dragging along an axis chooses a range of its values, and a click removes the range.

import { html, useRef } from "../../lib/ui.js";

const [WIDTH, HEIGHT, TOP, BOTTOM, SIDE] = [1000, 340, 46, 18, 80];
const BRUSH_WIDTH = 26;
const MAX_DISTANCE = 14;
const MIN_DRAG = 0.01;
const MAX_TICKS = 12;
const MAX_CHARACTERS = 14;

const toY = (at) => HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM);
const toPlace = (y) => Math.min(1, Math.max(0, (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM)));
const toX = (index, count) => (count > 1 ? SIDE + (index * (WIDTH - 2 * SIDE)) / (count - 1) : WIDTH / 2);
const shorten = (text) => (text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS - 1)}…` : text);

/** @param axes `[{name, scale, range}]`
 * @param selected the names of the runs that are in all ranges. The others are faint.
 * @param highlighted the name of the run that is drawn in front of the others.
 * @param onHighlight called with the name of a run, or an empty text.
 * @param onRange called with the name of an axis and its range, or null. */
export function Parallel({ runs, axes, selected, highlighted, onHighlight, onRange }) {
  const svg = useRef(null);
  const locate = (event) => {
    const box = svg.current.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * WIDTH, y: ((event.clientY - box.top) / box.height) * HEIGHT };
  };
  const lines = runs.map((run) => ({ name: run.name, points: axes.map(({ name, scale }) => scale.place(run.values[name] ?? "")) }));
  const chosen = lines.filter((line) => selected.has(line.name));
  const highlightNearest = (event) => onHighlight(findNearest(chosen, axes.length, locate(event)));
  const front = lines.find((line) => line.name === highlighted);
  const names = axes.map((axis) => axis.name).join(", ");
  return html`
    <svg class="parallel" ref=${svg} viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" onPointerMove=${highlightNearest} onPointerLeave=${() => onHighlight("")}
      aria-label="Parallel coordinates of ${runs.length} runs, ${chosen.length} of them in the chosen ranges: ${names}. The table contains the values.">
      ${lines.map((line) => html`
        <path key=${line.name} class=${selected.has(line.name) ? "line" : "line other"} d=${makePath(line.points)} />
      `)}
      ${front && html`<path class="line front" d=${makePath(front.points)} />`}
      ${axes.map((axis, index) => html`
        <${Axis} key=${axis.name} ...${axis} x=${toX(index, axes.length)} locate=${locate} onRange=${(range) => onRange(axis.name, range)} />
      `)}
    </svg>
  `;
}

/** Return a path with a gap at each missing value. */
function makePath(points) {
  let command = "M";
  return points.map((at, index) => {
    const part = at === null ? "" : `${command}${toX(index, points.length).toFixed(1)} ${toY(at).toFixed(1)}`;
    command = at === null ? "M" : "L";
    return part;
  }).join("");
}

/** Return the name of the line that is nearest to a point; an empty text if all lines are far from it. */
function findNearest(lines, count, { x, y }) {
  const step = count > 1 ? (WIDTH - 2 * SIDE) / (count - 1) : WIDTH;
  const left = Math.min(Math.max(Math.floor((x - SIDE) / step), 0), Math.max(count - 2, 0));
  const share = Math.min(1, Math.max(0, (x - toX(left, count)) / step));
  let [name, distance] = ["", MAX_DISTANCE];
  for (const line of lines) {
    const [first, second] = [line.points[left], line.points[left + 1] ?? line.points[left]];
    const gap = first === null || second === null ? Infinity : Math.abs(toY(first + (second - first) * share) - y);
    if (gap < distance) [name, distance] = [line.name, gap];
  }
  return name;
}

function Axis({ name, scale, range, x, locate, onRange }) {
  const start = useRef(null);
  const drag = (event) => {
    const ends = [start.current, toPlace(locate(event).y)].sort((first, second) => first - second);
    onRange(ends[1] - ends[0] < MIN_DRAG ? null : ends.map(scale.invert));
  };
  const handlers = {
    onPointerDown: (event) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      start.current = toPlace(locate(event).y);
      onRange(null);
    },
    onPointerMove: (event) => start.current !== null && drag(event),
    onPointerUp: () => (start.current = null),
    onPointerCancel: () => (start.current = null),
  };
  const [low, high] = range ? range.map((value) => toPlace(toY(scale.isNumeric ? scale.place(value) : value))) : [0, 0];
  return html`
    <g>
      <path class="axis" d="M${x} ${toY(1)}V${toY(0)}" />
      <text class="title" x=${x} y="16" text-anchor="middle"><title>${name}</title>${shorten(name)}${scale.isLog ? " (log)" : ""}</text>
      ${scale.ticks.slice(0, MAX_TICKS).map(({ at, label }) => html`
        <text key=${label} x=${x + 6} y=${toY(at) + (at === 1 ? -6 : at === 0 ? 14 : 4)}>${shorten(label)}</text>
      `)}
      ${range && html`<rect class="range" x=${x - 6} width="12" y=${toY(high)} height=${Math.max(2, toY(low) - toY(high))} />`}
      <rect class="handle" data-axis=${name} x=${x - BRUSH_WIDTH / 2} width=${BRUSH_WIDTH} y=${toY(1)} height=${toY(0) - toY(1)} ...${handlers} />
    </g>
  `;
}
