// The graph of an execution's steps, as an SVG image. A table shows the steps and their statuses as text.

import { html, useMemo } from "../../lib/ui.js";
import { makeLayers } from "./layout.js";
import { classifyStep } from "./timeline.js";

const WIDTH = 190;
const HEIGHT = 58;
const GAP_X = 30;
const GAP_Y = 44;
const MAX_CHARACTERS = 24;

export function Graph({ nodes }) {
  const layout = useMemo(() => computeLayout(nodes), [nodes.map((node) => node.name).join("\n")]);
  const edges = nodes.flatMap((node) =>
    node.dependencies
      .filter((dependency) => layout.corners.has(dependency.name))
      .map((dependency) => ({ from: dependency.name, to: node.name, label: dependency.label })),
  );
  return html`
    <div class="graph" role="region" aria-label="Graph of the steps" tabindex="0">
      <svg width=${layout.width} height=${layout.height} viewBox=${`0 0 ${layout.width} ${layout.height}`}>
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" />
          </marker>
        </defs>
        ${edges.map((edge) => html`<${Edge} key=${`${edge.from}>${edge.to}`} edge=${edge} corners=${layout.corners} />`)}
        ${nodes.map((node) => html`<${Node} key=${node.name} node=${node} corner=${layout.corners.get(node.name)} />`)}
      </svg>
    </div>
  `;
}

/** Return the size of the image, and the upper left corner of each node. Layers are centred. */
function computeLayout(nodes) {
  const layers = makeLayers(nodes);
  const columnCount = Math.max(1, ...layers.map((layer) => layer.length));
  const width = columnCount * (WIDTH + GAP_X);
  const corners = new Map();
  layers.forEach((layer, row) => {
    const left = (width - layer.length * (WIDTH + GAP_X) + GAP_X) / 2;
    layer.forEach((node, column) => {
      corners.set(node.name, { x: left + column * (WIDTH + GAP_X), y: 2 + row * (HEIGHT + GAP_Y) });
    });
  });
  return { corners, width, height: layers.length * (HEIGHT + GAP_Y) - GAP_Y + 4 };
}

function Edge({ edge, corners }) {
  const [from, to] = [corners.get(edge.from), corners.get(edge.to)];
  const [x1, y1, x2, y2] = [from.x + WIDTH / 2, from.y + HEIGHT, to.x + WIDTH / 2, to.y];
  const bend = (y2 - y1) / 2;
  return html`
    <path class="edge" d=${`M${x1} ${y1} C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`} marker-end="url(#arrow)" />
    ${edge.label && html`<text class="edge-label" x=${(x1 + x2) / 2 + 6} y=${(y1 + y2) / 2}>${edge.label}</text>`}
  `;
}

function Node({ node, corner }) {
  const content = html`
    <rect width=${WIDTH} height=${HEIGHT} rx="6" />
    <text class="name" x="10" y="18">${shorten(node.name)}</text>
    <text class="detail" x="10" y="34">${[node.type, node.note].filter(Boolean).join(", ")}</text>
    <text class="state" x="10" y="50">${node.status || "not started"}</text>
    <title>${node.name}</title>
  `;
  const attributes = { class: `node ${node.status ? classifyStep(node.status) : ""}`, transform: `translate(${corner.x} ${corner.y})` };
  return node.href ? html`<a href=${node.href} ...${attributes}>${content}</a>` : html`<g ...${attributes}>${content}</g>`;
}

const shorten = (name) => (name.length > MAX_CHARACTERS ? `${name.slice(0, MAX_CHARACTERS - 1)}…` : name);
