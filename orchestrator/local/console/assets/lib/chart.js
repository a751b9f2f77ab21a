// A chart with one or more curves. Drag to zoom, double-click to see everything.

import uPlot from "../vendor/uplot.js";
import { html, useEffect, useRef } from "./ui.js";

const HEIGHT = 220;
const COLORS = ["#3b6fe0", "#d9730d", "#2a9d5c", "#c9358b", "#7d56d1", "#0f9bab", "#a6811a", "#c4453c"];
const DARK = matchMedia("(prefers-color-scheme: dark)");

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
export const formatNumber = (value) => (value === null || value === undefined ? "" : NUMBER.format(value));

/** A chart, with a table of the last values.
 *
 * @param curves `[{label, x, y}]`
 * @param isTime whether x is a time in seconds since 1970; otherwise, it is a number.
 * @param isLog whether the scale of y is logarithmic. Values that are not positive are then left out.
 */
export function Chart({ title, curves, isTime = false, isLog = false, xLabel = "" }) {
  const box = useRef(null);
  const plot = useRef(null);
  const labels = curves.map((curve) => curve.label);
  const data = join(curves, isLog);
  useEffect(() => {
    const element = box.current; // null after the removal of the page, when the observer may still call
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(makeOptions(box.current, { labels, isTime, isLog, xLabel }), data, box.current);
    };
    const resize = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height: HEIGHT }));
    draw();
    resize.observe(box.current);
    DARK.addEventListener("change", draw);
    return () => {
      DARK.removeEventListener("change", draw);
      resize.disconnect();
      plot.current.destroy();
    };
  }, [labels.join("\n"), isTime, isLog]);
  useEffect(() => setData(plot.current, data), [data]);
  return html`
    <figure class="chart">
      <figcaption>${title}</figcaption>
      <div ref=${box} role="img" aria-label=${describe(title, curves)}></div>
      <ul class="legend">${curves.map((curve, index) => html`
        <li><span class="swatch" style=${{ background: COLORS[index % COLORS.length] }}></span>
          ${curve.label} <b>${formatNumber(curve.y.at(-1))}</b></li>
      `)}</ul>
    </figure>
  `;
}

/** Show new data, but keep the zoom. */
function setData(plot, data) {
  const [{ min, max }, [times]] = [plot.scales.x, plot.data];
  const isZoomed = min !== null && times.length > 0 && (min > times[0] || max < times.at(-1));
  plot.setData(data, !isZoomed);
  if (isZoomed) plot.redraw();
}

function join(curves, isLog) {
  const tables = curves.map(({ x, y }) => [x, isLog ? y.map((value) => (value > 0 ? value : null)) : y]);
  return tables.length > 1 ? uPlot.join(tables) : tables[0];
}

function makeOptions(box, { labels, isTime, isLog, xLabel }) {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--muted", "--line"].map((name) => resolve(box, style.getPropertyValue(name)));
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const series = labels.map((label, index) => ({
    label,
    stroke: COLORS[index % COLORS.length],
    width: 1.5,
    spanGaps: true,
    points: { size: 4 },
  }));
  return {
    width: box.clientWidth,
    height: HEIGHT,
    scales: { x: { time: isTime }, y: { distr: isLog ? 3 : 1 } },
    axes: [{ ...axis, label: xLabel || undefined, labelSize: 20 }, { ...axis, size: 70, values: (_, ticks) => ticks.map(formatNumber) }],
    series: [{}, ...series],
    legend: { show: false },
    cursor: { sync: { key: "charts" } },
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
  const parts = curves.map(({ label, y }) => {
    const [low, high] = y.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    return `${label}: from ${formatNumber(low)} to ${formatNumber(high)}, last ${formatNumber(y.at(-1))}`;
  });
  return `Curves of ${title}. ${parts.join("; ")}`;
}
