"use strict";
/* Who reads whom: a node for the input and for each layer, and the names of its maps and units.

   Node i + 1 is layer i as the engine counts them; node 0 is the input. A node has `shape`
   [C, H, W], `sources` (nodes), `rows` (of a residual layer: the nodes of each branch in it) and
   the facts of its layer. */
(() => {
  const convscape = (window.convscape ??= {});

  function graph(document) {
    const nodes = [
      {
        id: 0, name: "input", kind: "input", words: "the image", shape: document.input, sources: [],
        parameters: 0, macs: 0, field: { size: [1, 1], stride: [1, 1], padding: [0, 0] }, rows: [],
      },
    ];
    const classes = document.classes;
    const inRow = layers =>
      layers.map(layer => {
        const node = { ...layer, id: layer.index + 1, sources: layer.from.map(index => index + 1) };
        nodes[node.id] = node;
        node.rows = layer.branches.map(inRow);
        return node;
      });
    const row = [nodes[0], ...inRow(document.layers)];
    for (const node of nodes) {
      node.readers = nodes.filter(other => other.sources.includes(node.id)).map(other => other.id);
      node.isVector = node.shape[1] * node.shape[2] === 1;
    }
    const last = row[row.length - 1];
    last.classes = last.shape[0] === classes.length ? classes : null;
    return { nodes, row, last, input: nodes[0] };
  }

  // the numbers of each node for the current input
  const valuesOf = state => [convscape.network.normalize(state.pixels), ...state.activations.map(each => each.values)];
  const tensor = (node, name) => convscape.network.layers[node.id - 1].tensors[name];

  const written = (x, digits = 3) =>
    x === 0 ? "0" : Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5 ? x.toExponential(digits - 1).replace("-", "−")
    : String(Number(x.toPrecision(digits))).replace("-", "−");
  const short = count =>
    count < 1e4 ? count.toLocaleString("en") : count < 1e6 ? `${Number((count / 1e3).toPrecision(3))}k`
    : `${Number((count / 1e6).toPrecision(3))}M`;
  const by = sizes => sizes.join("×");
  const square = ([height, width]) => `${height}×${width}`;

  // counted from 1, like the rows and columns of a table
  function mapName(graph, node, map) {
    if (node.classes) return `class ${node.classes[map]}`;
    if (node.id === 0 && node.shape[0] === 3) return ["red", "green", "blue"][map];
    if (node.id === 0) return node.shape[0] === 1 ? "the image" : `channel ${map + 1}`;
    if (node.kind === "flatten") return unitOfFlat(graph, node, map).words;
    return `${node.isVector ? "unit" : "map"} ${map + 1}`;
  }
  function unitName(graph, { node, map, row, column }) {
    const name = mapName(graph, node, map);
    return node.isVector ? name : `${name}, row ${row + 1}, column ${column + 1}`;
  }
  // where a number of a flattened layer was before
  function unitOfFlat(graph, node, index) {
    const before = graph.nodes[node.sources[0]];
    const [, height, width] = before.shape;
    const map = Math.floor(index / (height * width));
    const row = Math.floor(index / width) % height, column = index % width;
    return { node: before, map, row, column, words: unitName(graph, { node: before, map, row, column }) };
  }

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes))
      if (value !== null && value !== undefined) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  convscape.graph = { build: graph, valuesOf, tensor, mapName, unitName, unitOfFlat };
  convscape.words = { written, short, by, square, element };
})();
