// A layered layout of a graph: a node is below all nodes before it, and near them.

const SWEEPS = 4;

/** Return `[[node]]`, the layers from top to bottom. A node has a unique `name`, and `before: [{name}]`. */
export function makeLayers(nodes) {
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const depths = new Map();
  for (const node of nodes) findDepth(node, byName, depths);
  const layers = [];
  for (const node of nodes) (layers[depths.get(node.name)] ??= []).push(node);
  for (let sweep = 0; sweep < SWEEPS; sweep++) sortLayers(layers, nodes, sweep % 2 === 1);
  return layers;
}

/** Return the length of the longest path to a node. */
function findDepth(node, byName, depths) {
  if (depths.has(node.name)) return depths.get(node.name);
  depths.set(node.name, 0); // ends the recursion in a damaged definition with a cycle
  const before = node.before.map((one) => byName.get(one.name)).filter(Boolean);
  const depth = Math.max(-1, ...before.map((one) => findDepth(one, byName, depths))) + 1;
  depths.set(node.name, depth);
  return depth;
}

/** Sort each layer by the average position of the neighbours before it (or behind it). This avoids most crossings. */
function sortLayers(layers, nodes, isUpward) {
  const positions = new Map();
  for (const layer of layers) layer.forEach((node, index) => positions.set(node.name, index / layer.length));
  const behind = new Map(nodes.map((node) => [node.name, []]));
  for (const node of nodes) for (const one of node.before) behind.get(one.name)?.push(node.name);
  const getNeighbours = (node) => (isUpward ? behind.get(node.name) : node.before.map((one) => one.name));
  for (const layer of isUpward ? [...layers].reverse() : layers) {
    const keys = new Map(layer.map((node) => [node, average(getNeighbours(node), positions) ?? positions.get(node.name)]));
    layer.sort((one, other) => keys.get(one) - keys.get(other));
    layer.forEach((node, index) => positions.set(node.name, index / layer.length));
  }
}

function average(names, positions) {
  const known = names.filter((name) => positions.has(name));
  return known.length ? known.reduce((sum, name) => sum + positions.get(name), 0) / known.length : null;
}
