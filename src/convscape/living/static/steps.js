"use strict";
/* How a unit is computed: the numbers that it reads and what is done to them, as in the engine.
   Pure. A window is {top, left, height, width} in units of the map it reads, and may reach outside. */
(() => {
  const convscape = (window.convscape ??= {});

  // how far a pooling reads beyond its window: see geometry.layers.POOLINGS
  const reach = node => (node.pool === "blur" ? [2, 2] : node.pool === "aps" ? node.stride.map(s => s - 1) : [0, 0]);

  const slides = node => node.kind === "conv" || node.kind === "pool";

  // what a unit reads from a source, with its layer's stride and padding
  function windowOf(graph, node, row, column, grid = [0, 0]) {
    const source = graph.nodes[node.sources[0]];
    if (node.kind === "global_pool" || node.kind === "dense" || (node.kind === "flatten" && source))
      return { top: 0, left: 0, height: source.shape[1], width: source.shape[2] };
    if (node.kind === "subsample")
      return { top: row * node.stride[0], left: column * node.stride[1], height: 1, width: 1 };
    if (!slides(node)) return { top: row, left: column, height: 1, width: 1 };
    const more = node.pool === "blur" ? reach(node) : [0, 0];
    const dilation = node.dilation ?? [1, 1];
    return {
      top: row * node.stride[0] - node.pads[0] + grid[0],
      left: column * node.stride[1] - node.pads[2] + grid[1],
      height: (node.kernel_size[0] - 1) * dilation[0] + 1 + more[0],
      width: (node.kernel_size[1] - 1) * dilation[1] + 1 + more[1],
    };
  }

  // the pixels of the image that a unit sees
  const fieldOf = (node, row, column) => ({
    top: row * node.field.stride[0] - node.field.padding[0],
    left: column * node.field.stride[1] - node.field.padding[1],
    height: node.field.size[0],
    width: node.field.size[1],
  });

  // reads a map like a layer with padding: null is outside
  function reader(values, source, map, circular) {
    const [, height, width] = source.shape, from = map * height * width;
    return (y, x) => {
      if (circular) [y, x] = [(y + height) % height, (x + width) % width];
      return y < 0 || x < 0 || y >= height || x >= width ? null : values[from + y * width + x];
    };
  }

  // the numbers under a window, row by row
  function patchOf(read, { top, left }, [height, width], [down, along]) {
    const patch = [];
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) patch.push(read(top + y * down, left + x * along));
    return patch;
  }

  // a convolution: for each input map its patch, kernel, products and their sum
  function convolution(graph, values, { node, map, row, column }) {
    const source = graph.nodes[node.sources[0]];
    const size = node.kernel_size[0] * node.kernel_size[1];
    const perGroup = source.shape[0] / node.groups;
    const first = Math.floor(map / (node.shape[0] / node.groups)) * perGroup;
    const weight = convscape.graph.tensor(node, "weight"), bias = convscape.graph.tensor(node, "bias");
    const place = windowOf(graph, node, row, column);
    const terms = [];
    for (let i = 0; i < perGroup; i++) {
      const read = reader(values[source.id], source, first + i, node.circular);
      const patch = patchOf(read, place, node.kernel_size, node.dilation);
      const start = (map * perGroup + i) * size;
      const kernel = Array.from(weight.subarray(start, start + size));
      const products = patch.map((value, k) => (value ?? 0) * kernel[k]);
      terms.push({ map: first + i, patch, kernel, products, sum: products.reduce((a, b) => a + b, 0) });
    }
    return { source, window: place, terms, bias: bias ? bias[map] : null };
  }

  // the maximum under the window at (y, x), padding counting as `outside`
  const maximum = (read, node, y, x, outside) =>
    Math.max(...patchOf(read, { top: y, left: x }, node.kernel_size, [1, 1]).map(value => value ?? outside));

  // a pooling: the numbers under its window, and which it kept, or how much of each
  function pooling(graph, values, { node, map, row, column }) {
    const source = graph.nodes[node.sources[0]];
    const read = reader(values[source.id], source, map, node.circular);
    if (node.pool === "blur") {
      const place = windowOf(graph, node, row, column), maxima = [], weights = [];
      for (let y = 0; y < 3; y++)
        for (let x = 0; x < 3; x++) {
          maxima.push(maximum(read, node, place.top + y, place.left + x, 0));
          weights.push(([1, 2, 1][y] * [1, 2, 1][x]) / 16);
        }
      return { source, window: place, size: [3, 3], patch: maxima, weights, kept: null };
    }
    const whole = node.kind === "global_pool";
    const grid = node.pool === "aps"
      ? convscape.engine.polyphase(convscape.network.layers[node.id - 1], values[source.id]).grid : [0, 0];
    const place = windowOf(graph, node, row, column, grid);
    const size = whole ? source.shape.slice(1) : node.kernel_size;
    const patch = patchOf(read, place, size, [1, 1]);
    if (node.pool === "avg") {
      const count = patch.filter(value => value !== null).length;
      return { source, window: place, size, patch, weights: patch.map(value => (value === null ? 0 : 1 / count)), kept: null, count };
    }
    let kept = patch.findIndex(value => value !== null);
    patch.forEach((value, i) => { if (value !== null && value > patch[kept]) kept = i; });
    return { source, window: place, size, patch, weights: null, kept, grid };
  }

  // a dense unit: for flattened maps, a kernel as large as each; otherwise one number each
  function dense(graph, values, { node, map }) {
    const source = graph.nodes[node.sources[0]], inputs = values[source.id], count = inputs.length;
    const weight = convscape.graph.tensor(node, "weight").subarray(map * count, (map + 1) * count);
    const bias = convscape.graph.tensor(node, "bias");
    const maps = mapsBefore(graph, source);
    const [channels, height, width] = maps ? maps.shape : [count, 1, 1];
    const size = height * width, terms = [];
    for (let c = 0; c < channels; c++) {
      const patch = inputs.subarray(c * size, (c + 1) * size);
      const kernel = weight.subarray(c * size, (c + 1) * size);
      let sum = 0;
      for (let i = 0; i < size; i++) sum += patch[i] * kernel[i];
      terms.push({ map: c, patch, kernel, sum });
    }
    return { source: maps ?? source, terms, size: [height, width], bias: bias ? bias[map] : null,
      window: { top: 0, left: 0, height, width } };
  }
  // the maps that a vector came from, if only a flatten layer (and dropout) is in between
  function mapsBefore(graph, node) {
    while (node.kind === "dropout") node = graph.nodes[node.sources[0]];
    const before = node.kind === "flatten" ? graph.nodes[node.sources[0]] : null;
    return before && !before.isVector ? before : null;
  }

  // the functions of engine.functions, in words
  const functionWords = {
    relu: "max(0, x)", leaky_relu: "x, or 0.01·x below 0", elu: "x, or eˣ − 1 below 0",
    selu: "1.05·x, or 1.76·(eˣ − 1) below 0", gelu: "x·Φ(x)", silu: "x / (1 + e⁻ˣ)",
    tanh: "tanh x", sigmoid: "1 / (1 + e⁻ˣ)",
  };

  function normalization(node, map) {
    const of = name => convscape.graph.tensor(node, name)[map];
    return { mean: of("mean"), deviation: Math.sqrt(of("variance") + node.eps), gamma: of("weight"), beta: of("bias") };
  }

  const isElementwise = node => ["batch_norm", "activation", "dropout"].includes(node.kind);

  // the layer whose values became those of `node` by element-wise changes
  function origin(graph, node) {
    let found = node;
    while (isElementwise(found)) found = graph.nodes[found.sources[0]];
    return found.id || node.id === 0 ? found : node;
  }

  // the layers after a unit that change only it: batch norm, activation, dropout
  function onwards(graph, node) {
    const found = [];
    for (let next = node; next.readers.length === 1; ) {
      next = graph.nodes[next.readers[0]];
      if (!isElementwise(next)) break;
      found.push(next);
    }
    return found;
  }

  convscape.steps = { windowOf, fieldOf, slides, convolution, pooling, dense, functionWords, normalization, origin, onwards };
})();
