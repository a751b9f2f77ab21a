// A chart with one or more curves. It can be zoomed with the mouse and with keys.

import uPlot from "../vendor/uplot.js";
import { html, useEffect, useMemo, useRef, useState } from "./ui.js";

const HEIGHT = 220;
const COLORS = ["#3b6fe0", "#d9730d", "#2a9d5c", "#c9358b", "#7d56d1", "#0f9bab", "#a6811a", "#c4453c"];
const MAX_LABELED_CURVES = 16; // if there are more curves, only one has a label: the highlighted one, or the one nearest to the mouse
const FAINT_OPACITY = "40"; // opacity of the original points of a smoothed curve, in hexadecimal digits
const DARK_MODE = matchMedia("(prefers-color-scheme: dark)");

const NUMBER_FORMAT = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
export const formatNumber = (value) => (value === null || value === undefined ? "" : NUMBER_FORMAT.format(value));

/** A chart, with the last values of the curves.
 *
 * @param curves `[{label, x, y}]`
 * @param isTime whether x is a time in seconds since 1970; otherwise, it is a number.
 * @param isLog whether the scale of y is logarithmic. Values that are not positive are then left out.
 * @param smoothing the weight of earlier points in a moving average, from 0 to less than 1.
 * @param highlightedLabel the label of the highlighted curve. The other curves are then faint.
 */
export function Chart({ title, curves, isTime = false, isLog = false, smoothing = 0, xLabel = "", highlightedLabel = "" }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [nearestLabel, setNearestLabel] = useState("");
  const lines = useMemo(() => makeLines(curves, smoothing), [curves, smoothing]);
  const data = useMemo(() => join(lines, isLog), [lines, isLog]);
  const keys = lines.map((line) => line.key).join("\n");
  useEffect(() => {
    // `box.current` is null after the page was removed, but the observer may call its function once more
    const element = box.current;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(makeOptions(element, { lines, isLabeled: areLabeled(curves), isTime, isLog, xLabel, setNearestLabel }), data, element);
    };
    const resize = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height: HEIGHT }));
    draw();
    resize.observe(element);
    DARK_MODE.addEventListener("change", draw);
    return () => {
      DARK_MODE.removeEventListener("change", draw);
      resize.disconnect();
      plot.current.destroy();
    };
  }, [keys, isTime, isLog, xLabel]);
  useEffect(() => setData(plot.current, data), [data]);
  useEffect(() => highlight(plot.current, lines, highlightedLabel), [highlightedLabel, keys]);
  return html`
    <figure class="chart">
      <figcaption>${title}</figcaption>
      <div ref=${box} role="img" tabindex="0" aria-label=${describe(title, curves)} onKeyDown=${(event) => zoom(plot.current, event)}></div>
      <${Legend} curves=${curves} shownLabel=${highlightedLabel || nearestLabel} />
    </figure>
  `;
}

function Legend({ curves, shownLabel }) {
  const rows = curves.map(({ label, y }, index) => ({ label, last: y.at(-1), color: getColor(index) }));
  const visibleRows = areLabeled(curves) ? rows : rows.filter((row) => row.label === shownLabel);
  return html`
    <ul class="legend">
      ${!areLabeled(curves) && html`<li>${rows.length} curves</li>`}
      ${visibleRows.map(({ label, last, color }) => html`
        <li key=${label}><span class="swatch" style=${{ background: color }}></span>${label} <b>${formatNumber(last)}</b></li>
      `)}
    </ul>
  `;
}

/** Return whether all curves have labels. */
const areLabeled = (curves) => curves.length <= MAX_LABELED_CURVES;

const getColor = (index) => COLORS[index % COLORS.length];

/** Return the lines to draw, `[{key, label, x, y, color}]`: the curves, and the original points of smoothed curves. */
function makeLines(curves, smoothing) {
  const lines = curves.map(({ label, x, y }, index) => ({ key: label, label, x, y: smooth(y, smoothing), color: getColor(index) }));
  if (!smoothing || !areLabeled(curves)) return lines;
  const originals = curves.map(({ label, x, y }, index) => ({ key: `${label} `, label, x, y, color: `${getColor(index)}${FAINT_OPACITY}` }));
  return [...originals, ...lines];
}

/** Return the exponential moving average of numbers. It does not overweight the first numbers, because each sum is
 * divided by the sum of its weights. */
export function smooth(numbers, weight) {
  let [sum, weightSum] = [0, 0];
  return weight ? numbers.map((number) => {
    sum = sum * weight + number;
    weightSum = weightSum * weight + 1;
    return sum / weightSum;
  }) : numbers;
}

/** Show new data, but keep the zoom. */
function setData(plot, data) {
  const [{ min, max }, [xValues]] = [plot.scales.x, plot.data];
  const isZoomed = min !== null && xValues.length > 0 && (min > xValues[0] || max < xValues.at(-1));
  plot.setData(data, !isZoomed);
  if (isZoomed) plot.redraw();
}

function join(lines, isLog) {
  const tables = lines.map(({ x, y }) => [x, isLog ? y.map((value) => (value > 0 ? value : null)) : y]);
  return tables.length > 1 ? uPlot.join(tables) : tables[0];
}

/** Zoom with + and -, move with the arrow keys, and show everything with 0. */
function zoom(plot, event) {
  const [{ min, max }, [xValues]] = [plot.scales.x, plot.data];
  const quarter = (max - min) / 4;
  const ranges = {
    "+": [min + quarter, max - quarter],
    "-": [min - 2 * quarter, max + 2 * quarter],
    0: [xValues[0], xValues.at(-1)],
    ArrowLeft: [min - quarter, max - quarter],
    ArrowRight: [min + quarter, max + quarter],
  };
  const range = ranges[event.key === "=" ? "+" : event.key];
  if (!range || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [low, high] = [Math.max(range[0], xValues[0]), Math.min(range[1], xValues.at(-1))];
  if (low < high) plot.setScale("x", { min: low, max: high });
}

function highlight(plot, lines, label) {
  const index = lines.findLastIndex((line) => line.label === label);
  plot.setSeries(index < 0 ? null : index + 1, { focus: true });
}

function makeOptions(box, { lines, isLabeled, isTime, isLog, xLabel, setNearestLabel }) {
  const style = getComputedStyle(document.documentElement);
  const [textColor, lineColor] = ["--muted", "--line"].map((name) => resolveColor(box, style.getPropertyValue(name)));
  const axis = { stroke: textColor, grid: { stroke: lineColor, width: 1 }, ticks: { stroke: lineColor, width: 1 } };
  const series = lines.map(({ label, color, y }) => ({
    label,
    stroke: color,
    width: 1.5,
    spanGaps: true,
    points: { size: 4, show: isLabeled ? undefined : y.length === 1 },
  }));
  return {
    width: box.clientWidth,
    height: HEIGHT,
    scales: { x: { time: isTime }, y: { distr: isLog ? 3 : 1 } },
    axes: [{ ...axis, label: xLabel || undefined, labelSize: 20 }, { ...axis, size: 70, values: (_, ticks) => ticks.map(formatNumber) }],
    series: [{}, ...series],
    legend: { show: false },
    focus: { alpha: 0.15 },
    cursor: { sync: { key: "charts" }, focus: { prox: isLabeled ? -1 : 24 } },
    hooks: { setSeries: [(_, index) => setNearestLabel(index ? lines[index - 1].label : "")] },
  };
}

/** Return a colour that a canvas understands. */
function resolveColor(box, color) {
  box.style.color = color;
  const computedColor = getComputedStyle(box).color;
  box.style.color = "";
  return computedColor;
}

function describe(title, curves) {
  const parts = curves.slice(0, MAX_LABELED_CURVES).map(({ label, y }) => {
    const [low, high] = findRange(y);
    return `${label}: from ${formatNumber(low)} to ${formatNumber(high)}, last ${formatNumber(y.at(-1))}`;
  });
  const remainder = curves.length - parts.length;
  return `Curves of ${title}. ${parts.join("; ")}${remainder ? `; and ${remainder} more curves` : ""}`;
}

const findRange = (numbers) =>
  numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
