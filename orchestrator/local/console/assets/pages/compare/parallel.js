// Parallel coordinates: one vertical axis per hyperparameter or metric, and one line per run. The pointer highlights the
// nearest line. Dragging along an axis chooses a range of its values, and a click removes the range.

import { formatCount } from "../../lib/format.js";
import { html, useRef } from "../../lib/ui.js";

const [WIDTH, HEIGHT, TOP, BOTTOM, SIDE] = [1000, 340, 46, 18, 80];
const HANDLE_WIDTH = 26;
const MAX_DISTANCE = 14; // maximum distance between the pointer and a highlighted line
const MIN_DRAG = 0.01; // minimum length of a range, as a share of the axis
const MAX_TICKS = 12;
const MAX_CHARACTERS = 14;

const clamp = (position) => Math.min(1, Math.max(0, position));
const toY = (position) => HEIGHT - BOTTOM - position * (HEIGHT - TOP - BOTTOM);
const yToPosition = (y) => clamp((HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM));
const toX = (index, axisCount) => (axisCount > 1 ? SIDE + (index * (WIDTH - 2 * SIDE)) / (axisCount - 1) : WIDTH / 2);
const shorten = (text) => (text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS - 1)}…` : text);

/** @param axes `[{name, scale, range}]`
 * @param chosenNames the names of the runs that are in all ranges. The lines of other runs are faint.
 * @param highlightedName the name of the run that is drawn in front of the others.
 * @param onHighlight called with the name of a run, or an empty text.
 * @param onRange called with the name of an axis and its range, or null. */
export function Parallel({ runs, axes, chosenNames, highlightedName, onHighlight, onRange }) {
  const svg = useRef(null);
  const locate = (event) => {
    const box = svg.current.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * WIDTH, y: ((event.clientY - box.top) / box.height) * HEIGHT };
  };
  const lines = runs.map((run) => ({ name: run.name, points: axes.map(({ name, scale }) => scale.toPosition(run.values[name] ?? "")) }));
  const chosenLines = lines.filter((line) => chosenNames.has(line.name));
  const highlightNearest = (event) => onHighlight(findNearest(chosenLines, axes.length, locate(event)));
  const highlightedLine = lines.find((line) => line.name === highlightedName);
  const names = axes.map((axis) => axis.name).join(", ");
  return html`
    <svg class="parallel" ref=${svg} viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" onPointerMove=${highlightNearest} onPointerLeave=${() => onHighlight("")}
      aria-label="Parallel coordinates of ${formatCount(runs.length, "run")}, ${chosenLines.length} of them in the chosen ranges: ${names}. The table contains the values.">
      ${lines.map((line) => html`
        <path key=${line.name} class=${chosenNames.has(line.name) ? "line" : "line other"} d=${makePath(line.points)} />
      `)}
      ${highlightedLine && html`<path class="line highlighted" d=${makePath(highlightedLine.points)} />`}
      ${axes.map((axis, index) => html`
        <${Axis} key=${axis.name} ...${axis} x=${toX(index, axes.length)} locate=${locate} onRange=${(range) => onRange(axis.name, range)} />
      `)}
    </svg>
  `;
}

/** Return a path with a gap at each missing value. */
function makePath(points) {
  let command = "M";
  return points.map((position, index) => {
    const part = position === null ? "" : `${command}${toX(index, points.length).toFixed(1)} ${toY(position).toFixed(1)}`;
    command = position === null ? "M" : "L";
    return part;
  }).join("");
}

/** Return the name of the line that is nearest to a point; an empty text if all lines are far from it. */
function findNearest(lines, axisCount, { x, y }) {
  const step = axisCount > 1 ? (WIDTH - 2 * SIDE) / (axisCount - 1) : WIDTH;
  const leftAxis = Math.min(Math.max(Math.floor((x - SIDE) / step), 0), Math.max(axisCount - 2, 0));
  const share = clamp((x - toX(leftAxis, axisCount)) / step);
  let [name, distance] = ["", MAX_DISTANCE];
  for (const line of lines) {
    const [first, second] = [line.points[leftAxis], line.points[leftAxis + 1] ?? line.points[leftAxis]];
    const gap = first === null || second === null ? Infinity : Math.abs(toY(first + (second - first) * share) - y);
    if (gap < distance) [name, distance] = [line.name, gap];
  }
  return name;
}

/** Return the position of an end of a range. The range of a scale of numbers may be open: its end is then infinite. On a
 * logarithmic scale, an end may be zero or negative: it is then below all values. */
function findEndPosition(scale, end) {
  if (scale.isLog && end <= 0) return 0;
  return clamp(scale.isNumeric && Number.isFinite(end) ? scale.toPosition(end) : end);
}

function Axis({ name, scale, range, x, locate, onRange }) {
  const start = useRef(null);
  const drag = (event) => {
    const ends = [start.current, yToPosition(locate(event).y)].sort((first, second) => first - second);
    onRange(ends[1] - ends[0] < MIN_DRAG ? null : ends.map(scale.invert));
  };
  const handlers = {
    onPointerDown: (event) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      start.current = yToPosition(locate(event).y);
      onRange(null);
    },
    onPointerMove: (event) => start.current !== null && drag(event),
    onPointerUp: () => (start.current = null),
    onPointerCancel: () => (start.current = null),
  };
  const [low, high] = range ? range.map((end) => findEndPosition(scale, end)) : [0, 0];
  return html`
    <g>
      <path class="axis" d="M${x} ${toY(1)}V${toY(0)}" />
      <text class="title" x=${x} y="16" text-anchor="middle"><title>${name}</title>${shorten(name)}${scale.isLog ? " (log)" : ""}</text>
      ${scale.ticks.slice(0, MAX_TICKS).map(({ position, label }) => html`
        <text key=${label} x=${x + 6} y=${toY(position) + (position === 1 ? -6 : position === 0 ? 14 : 4)}>${shorten(label)}</text>
      `)}
      ${range && html`<rect class="range" x=${x - 6} width="12" y=${toY(high)} height=${Math.max(2, toY(low) - toY(high))} />`}
      <rect class="handle" data-axis=${name} x=${x - HANDLE_WIDTH / 2} width=${HANDLE_WIDTH} y=${toY(1)} height=${toY(0) - toY(1)} ...${handlers} />
    </g>
  `;
}
