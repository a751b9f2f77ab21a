// A layered layout of a graph: each node is below and near the nodes that it waits for.

const SWEEPS = 4;

/** Return `[[node]]`, the layers from top to bottom.
 *
 * @param nodes `[{name, dependencies: [{name}]}]`, with unique names. A node waits for its dependencies.
 */
export function makeLayers(nodes) {
  const nodesByName = new Map(nodes.map((node) => [node.name, node]));
  const depths = new Map();
  for (const node of nodes) findDepth(node, nodesByName, depths);
  const layersByDepth = [];
  for (const node of nodes) (layersByDepth[depths.get(node.name)] ??= []).push(node);
  const layers = layersByDepth.filter(Boolean); // with a cycle, some depths have no node
  for (let sweep = 0; sweep < SWEEPS; sweep++) sortLayers(layers, nodes, sweep % 2 === 1);
  return layers;
}

/** Return the length of the longest path to a node. */
function findDepth(node, nodesByName, depths) {
  if (depths.has(node.name)) return depths.get(node.name);
  depths.set(node.name, 0); // this value ends the recursion if a damaged definition has a cycle
  const dependencies = node.dependencies.map((dependency) => nodesByName.get(dependency.name)).filter(Boolean);
  const depth = Math.max(-1, ...dependencies.map((dependency) => findDepth(dependency, nodesByName, depths))) + 1;
  depths.set(node.name, depth);
  return depth;
}

/** Sort the nodes of each layer. This avoids most crossings of edges.
 *
 * The key of a node is the average position of the nodes that it waits for. If `isUpward` is true, the key is the
 * average position of the nodes that wait for it.
 */
function sortLayers(layers, nodes, isUpward) {
  const positions = new Map();
  for (const layer of layers) layer.forEach((node, index) => positions.set(node.name, index / layer.length));
  const waitingNames = new Map(nodes.map((node) => [node.name, []]));
  for (const node of nodes) for (const dependency of node.dependencies) waitingNames.get(dependency.name)?.push(node.name);
  const getNeighbours = (node) => (isUpward ? waitingNames.get(node.name) : node.dependencies.map((dependency) => dependency.name));
  for (const layer of isUpward ? [...layers].reverse() : layers) {
    const keys = new Map(layer.map((node) => [node, average(getNeighbours(node), positions) ?? positions.get(node.name)]));
    layer.sort((first, second) => keys.get(first) - keys.get(second));
    layer.forEach((node, index) => positions.set(node.name, index / layer.length));
  }
}

function average(names, positions) {
  const placedNames = names.filter((name) => positions.has(name));
  return placedNames.length ? placedNames.reduce((sum, name) => sum + positions.get(name), 0) / placedNames.length : null;
}
