// A chart with one or more curves. It can be zoomed with the mouse and with keys.

import uPlot from "../vendor/uplot.js";
import { html, useEffect, useMemo, useRef, useState } from "./ui.js";

const HEIGHT = 220;
const COLORS = ["#3b6fe0", "#d9730d", "#2a9d5c", "#c9358b", "#7d56d1", "#0f9bab", "#a6811a", "#c4453c"];
const MAX_LABELED = 16; // with more curves, only the highlighted one has a label
const FAINT = "40"; // opacity of the original points of a smoothed curve
const DARK = matchMedia("(prefers-color-scheme: dark)");

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
export const formatNumber = (value) => (value === null || value === undefined ? "" : NUMBER.format(value));

/** A chart, with the last values of the curves.
 *
 * @param curves `[{label, x, y}]`
 * @param isTime whether x is a time in seconds since 1970; otherwise, it is a number.
 * @param isLog whether the scale of y is logarithmic. Values that are not positive are then left out.
 * @param smoothing the weight of earlier points in a moving average, from 0 to less than 1.
 * @param highlighted the label of the curve that is shown in front of the others.
 */
export function Chart({ title, curves, isTime = false, isLog = false, smoothing = 0, xLabel = "", highlighted = "" }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [nearest, setNearest] = useState("");
  const lines = useMemo(() => makeLines(curves, smoothing), [curves, smoothing]);
  const data = useMemo(() => join(lines, isLog), [lines, isLog]);
  const keys = lines.map((line) => line.key).join("\n");
  useEffect(() => {
    const element = box.current; // null after the removal of the page, when the observer may still call
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(makeOptions(element, { lines, isTime, isLog, xLabel, setNearest }), data, element);
    };
    const resize = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height: HEIGHT }));
    draw();
    resize.observe(element);
    DARK.addEventListener("change", draw);
    return () => {
      DARK.removeEventListener("change", draw);
      resize.disconnect();
      plot.current.destroy();
    };
  }, [keys, isTime, isLog, xLabel]);
  useEffect(() => setData(plot.current, data), [data]);
  useEffect(() => highlight(plot.current, lines, highlighted), [highlighted, keys]);
  return html`
    <figure class="chart">
      <figcaption>${title}</figcaption>
      <div ref=${box} role="img" tabindex="0" aria-label=${describe(title, curves)} onKeyDown=${(event) => zoom(plot.current, event)}></div>
      <${Legend} curves=${curves} shown=${highlighted || nearest} />
    </figure>
  `;
}

function Legend({ curves, shown }) {
  const rows = curves.map(({ label, y }, index) => ({ label, last: y.at(-1), color: getColor(index) }));
  const visible = rows.length <= MAX_LABELED ? rows : rows.filter((row) => row.label === shown);
  return html`
    <ul class="legend">
      ${rows.length > MAX_LABELED && html`<li>${rows.length} curves</li>`}
      ${visible.map(({ label, last, color }) => html`
        <li key=${label}><span class="swatch" style=${{ background: color }}></span>${label} <b>${formatNumber(last)}</b></li>
      `)}
    </ul>
  `;
}

const getColor = (index) => COLORS[index % COLORS.length];

/** Return the lines that are drawn, `[{key, label, x, y, color}]`: the curves, and the points of smoothed ones. */
function makeLines(curves, smoothing) {
  const lines = curves.map(({ label, x, y }, index) => ({ key: label, label, x, y: smooth(y, smoothing), color: getColor(index) }));
  if (!smoothing || curves.length > MAX_LABELED) return lines;
  const originals = curves.map(({ label, x, y }, index) => ({ key: `${label} `, label, x, y, color: `${getColor(index)}${FAINT}` }));
  return [...originals, ...lines];
}

/** Return the exponential moving average of numbers. The first ones have no more weight than the others. */
export function smooth(numbers, weight) {
  let [sum, total] = [0, 0];
  return weight ? numbers.map((number) => {
    sum = sum * weight + number;
    total = total * weight + 1;
    return sum / total;
  }) : numbers;
}

/** Show new data, but keep the zoom. */
function setData(plot, data) {
  const [{ min, max }, [times]] = [plot.scales.x, plot.data];
  const isZoomed = min !== null && times.length > 0 && (min > times[0] || max < times.at(-1));
  plot.setData(data, !isZoomed);
  if (isZoomed) plot.redraw();
}

function join(lines, isLog) {
  const tables = lines.map(({ x, y }) => [x, isLog ? y.map((value) => (value > 0 ? value : null)) : y]);
  return tables.length > 1 ? uPlot.join(tables) : tables[0];
}

/** Zoom with + and -, move with the arrow keys, and show everything with 0. */
function zoom(plot, event) {
  const [{ min, max }, [times]] = [plot.scales.x, plot.data];
  const quarter = (max - min) / 4;
  const ranges = {
    "+": [min + quarter, max - quarter],
    "-": [min - 2 * quarter, max + 2 * quarter],
    0: [times[0], times.at(-1)],
    ArrowLeft: [min - quarter, max - quarter],
    ArrowRight: [min + quarter, max + quarter],
  };
  const range = ranges[event.key === "=" ? "+" : event.key];
  if (!range || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [low, high] = [Math.max(range[0], times[0]), Math.min(range[1], times.at(-1))];
  if (low < high) plot.setScale("x", { min: low, max: high });
}

function highlight(plot, lines, label) {
  const index = lines.findLastIndex((line) => line.label === label);
  plot.setSeries(index < 0 ? null : index + 1, { focus: true });
}

function makeOptions(box, { lines, isTime, isLog, xLabel, setNearest }) {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--muted", "--line"].map((name) => resolve(box, style.getPropertyValue(name)));
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const isLabeled = lines.length <= 2 * MAX_LABELED;
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
    hooks: { setSeries: [(_, index) => setNearest(index ? lines[index - 1].label : "")] },
  };
}

/** Return a colour that a canvas understands. */
function resolve(box, color) {
  box.style.color = color;
  const resolved = getComputedStyle(box).color;
  box.style.color = "";
  return resolved;
}

function describe(title, curves) {
  const parts = curves.slice(0, MAX_LABELED).map(({ label, y }) => {
    const [low, high] = findRange(y);
    return `${label}: from ${formatNumber(low)} to ${formatNumber(high)}, last ${formatNumber(y.at(-1))}`;
  });
  const rest = curves.length - parts.length;
  return `Curves of ${title}. ${parts.join("; ")}${rest ? `; and ${rest} more curves` : ""}`;
}

const findRange = (numbers) =>
  numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
