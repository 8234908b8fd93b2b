"use strict";
/* What a map reads: links to the maps before it, with the weight of each. Pure. */
(() => {
  const convscape = (window.convscape ??= {});
  const MOST = 48; // links of a dense unit: those that matter most
  const isWeighted = node => node.kind === "conv" || node.kind === "dense";

  // of a map, to the layer before: {from, map, to, target, weight, strength 0..1}
  function direct(graph, values, node, map) {
    const link = (from, at, weight, strength) => ({ from, map: at, to: node, target: map, weight, strength });
    const source = graph.nodes[node.sources[0]];
    if (node.kind === "conv") return ofConvolution(graph, node, map, link);
    if (node.kind === "dense") return ofDense(graph, values, node, map, source, link);
    if (node.kind === "flatten") {
      const unit = convscape.graph.unitOfFlat(graph, node, map);
      return [link(unit.node, unit.map, 0, 0.15)];
    }
    return node.sources.map(id => graph.nodes[id]).filter(from => map < from.shape[0]).map(from => link(from, map, 0, 1));
  }

  function ofDense(graph, values, node, map, source, link) {
    const inputs = values[source.id], count = inputs.length;
    const weight = convscape.graph.tensor(node, "weight").subarray(map * count, (map + 1) * count);
    const size = i => Math.abs(weight[i] * inputs[i]);
    const most = Array.from(weight.keys()).sort((a, b) => size(b) - size(a)).slice(0, MOST);
    const largest = size(most[0]) || 1;
    return most.map(i => link(source, i, weight[i], size(i) / largest));
  }

  function ofConvolution(graph, node, map, link) {
    const source = graph.nodes[node.sources[0]];
    const weight = convscape.graph.tensor(node, "weight");
    const size = node.kernel_size[0] * node.kernel_size[1];
    const perGroup = source.shape[0] / node.groups;
    const first = Math.floor(map / (node.shape[0] / node.groups)) * perGroup;
    const kernels = [];
    for (let i = 0; i < perGroup; i++) {
      let sum = 0, squares = 0;
      for (let k = (map * perGroup + i) * size, end = k + size; k < end; k++) {
        sum += weight[k];
        squares += weight[k] ** 2;
      }
      kernels.push([sum, Math.sqrt(squares)]);
    }
    const largest = Math.max(...kernels.map(([, norm]) => norm)) || 1;
    return kernels.map(([sum, norm], i) => link(source, first + i, sum, norm / largest));
  }

  // back through the layers that only pass a map on, to the layer with weights and what it reads
  function behind(graph, values, node, map) {
    const found = [], seen = new Set();
    const follow = (at, which, isPast) => {
      if (!at.sources.length || seen.has(`${at.id} ${which}`)) return;
      seen.add(`${at.id} ${which}`);
      const links = direct(graph, values, at, which);
      found.push(...links);
      const past = isPast || isWeighted(at);
      for (const link of links)
        if (!past || link.from.kind === "flatten" || link.from.kind === "dropout" && link.from.isVector)
          follow(link.from, link.map, past);
    };
    follow(node, map, false);
    return found;
  }

  convscape.links = { behind };
})();
