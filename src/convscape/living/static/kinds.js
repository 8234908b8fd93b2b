"use strict";
/* The cards of each kind of layer: what it reads, what it does to it, what comes out. A card is
   {title, element, draw(unit, values)}. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written, square } = convscape.words;
  const { card, mapCanvas, table, bars, curve, sum } = convscape.cards;
  const { steps } = convscape;

  const sizeOf = ({ shape: [, height, width] }) => height * width;
  const limitOf = values => convscape.colors.limitOf(values);
  const at = (values, node, { map, row, column }) =>
    values[node.id][(map * node.shape[1] + row) * node.shape[2] + column];

  // the image, and what the unit sees of it
  function fieldCard({ graph, node, state }) {
    const map = mapCanvas("the image and what the unit sees of it", 92);
    const words = element("p");
    return {
      title: null, element: card("sees", map.element, words),
      draw(unit) {
        const seen = steps.fieldOf(node, unit.row, unit.column);
        const [channels, height, width] = graph.input.shape;
        map.draw({ pixels: state().pixels, shape: [channels, height, width], windows: [seen] });
        const whole = seen.height >= height && seen.width >= width;
        words.textContent = whole ? "all of the image" : `${square([seen.height, seen.width])} of the image`;
      },
    };
  }

  // --- sums over maps: convolutions, and dense units after a flatten layer ------------------------

  function weighted({ graph, origin, redraw }) {
    let picked = null, shownMap = null, terms = [], made;
    const isConv = origin.kind === "conv";
    const compute = (unit, values) => {
      const of = { node: origin, map: unit.map, row: unit.row, column: unit.column };
      made = isConv ? steps.convolution(graph, values, of) : steps.dense(graph, values, of);
      ({ terms } = made);
      if (shownMap !== unit.map) picked = null;
      shownMap = unit.map;
      // the map that matters most, until another is picked
      picked ??= terms.reduce((best, term, i) => (Math.abs(term.sum) > Math.abs(terms[best].sum) ? i : best), 0);
      return made;
    };
    return [readsCard(), productsCard(), sumCard()];

    function readsCard() {
      const map = mapCanvas("the input map, and the window on it"), words = element("p");
      return {
        title: "reads", element: card("", map.element, words),
        draw(unit, values) {
          const { source, window } = compute(unit, values), term = terms[picked];
          const name = convscape.graph.mapName(graph, source, term.map);
          words.textContent = terms.length > 1 ? `${name}, 1 of ${terms.length}` : name;
          map.element.hidden = source.isVector;
          if (source.isVector) return;
          map.draw({
            values: values[source.id], from: term.map * sizeOf(source), shape: [1, ...source.shape.slice(1)],
            limit: limitOf(values[source.id]), pads: isConv ? origin.pads : undefined,
            windows: [{ ...window, dilation: origin.dilation }],
          });
        },
      };
    }
    function productsCard() {
      const [patch, kernel, product] = ["it sees", "× weights", "= products"].map(table);
      const words = element("p");
      return {
        title: "multiplies", element: card("", element("div", { class: "tables" }, patch.element, kernel.element, product.element), words),
        draw(unit, values) {
          const term = terms[picked], size = isConv ? origin.kernel_size : made.size;
          const numbers = Array.from(term.patch);
          patch.draw(numbers, size, { limit: limitOf(values[made.source.id]), nameless: "padding: 0" });
          kernel.draw(Array.from(term.kernel), size);
          product.draw(numbers.map((value, i) => (value ?? 0) * term.kernel[i]), size);
          words.textContent = `the products of this map add up to ${written(term.sum)}`;
        },
      };
    }
    function sumCard() {
      const chart = bars("what each input map adds; arrow keys choose one", i => {
        picked = i;
        redraw();
      });
      const lines = sum();
      return {
        title: "adds up", element: card("", chart.element, lines.element),
        draw(unit, values) {
          const total = terms.reduce((all, term) => all + term.sum, 0);
          const name = convscape.graph.mapName(graph, made.source, terms[picked].map);
          chart.element.hidden = terms.length === 1;
          chart.draw(terms.map(term => term.sum), picked, `${name} adds ${written(terms[picked].sum)}`);
          lines.draw([
            [terms.length === 1 ? "products" : `${terms.length} ${made.source.isVector ? "units" : "maps"}`, total],
            ...(made.bias === null ? [] : [["+ bias", made.bias]]),
            ["=", at(values, origin, unit)],
          ]);
        },
      };
    }
  }

  // --- pooling -------------------------------------------------------------------------------------

  function pooled({ graph, origin }) {
    const map = mapCanvas("the input map, its window, and what was kept"), words = element("p");
    const [seen, weights] = [table("it sees"), table("× weights")];
    const lines = sum();
    let made, was = {};
    // for a maximum, each place in the map that was kept
    function keptPlaces(values, unit) {
      if (was.values === values && was.map === unit.map) return was.dots;
      const dots = [], [, height, width] = origin.shape;
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++) {
          const one = steps.pooling(graph, values, { node: origin, map: unit.map, row, column });
          if (one.kept === null) return [];
          dots.push([one.window.top + Math.floor(one.kept / one.size[1]), one.window.left + (one.kept % one.size[1])]);
        }
      was = { values, map: unit.map, dots };
      return dots;
    }
    const reads = {
      title: "reads", element: card("", map.element, words),
      draw(unit, values) {
        made = steps.pooling(graph, values, { ...unit, node: origin });
        const { source } = made, dots = origin.pool === "max" ? keptPlaces(values, unit) : [];
        map.draw({
          values: values[source.id], from: unit.map * sizeOf(source), shape: [1, ...source.shape.slice(1)],
          limit: limitOf(values[source.id]), pads: origin.pads, windows: [made.window], dots,
        });
        words.textContent = dots.length ? "dots: what pooling kept" : convscape.graph.mapName(graph, source, unit.map);
      },
    };
    const verb = { max: "keeps the largest", avg: "takes the mean", blur: "blurs the maxima", aps: "keeps the largest" };
    const takes = {
      title: verb[origin.pool], element: card("", element("div", { class: "tables" }, seen.element, weights.element), lines.element),
      draw(unit, values) {
        const { source, patch, size, kept } = made;
        seen.draw(patch, size, { limit: limitOf(values[source.id]), kept });
        weights.element.hidden = !made.weights;
        if (made.weights) weights.draw(made.weights, size, { limit: 1 });
        const grid = origin.pool === "aps" ? [[`grid from row ${made.grid[0] + 1}, column ${made.grid[1] + 1}`, null]] : [];
        const count = made.count ? [[`mean of ${made.count}`, null]] : [];
        lines.draw([...grid, ...count, ["=", at(values, origin, unit)]]);
      },
    };
    return [reads, takes];
  }

  // --- one map, and the position in it -----------------------------------------------------------------

  function place(graph, title, of, { isHidden = () => false } = {}) {
    const map = mapCanvas("the input map, and the place in it"), words = element("p");
    return {
      title, element: card("", map.element, words),
      draw(unit, values) {
        const from = of(unit);
        map.element.hidden = isHidden(unit) || from.node.isVector;
        words.textContent = isHidden(unit) ? "a channel of zeros"
          : `${from.node.name}, ${convscape.graph.unitName(graph, from)}: ${written(at(values, from.node, from))}`;
        if (map.element.hidden) return;
        map.draw({
          values: values[from.node.id], from: from.map * sizeOf(from.node), shape: [1, ...from.node.shape.slice(1)],
          limit: limitOf(values[from.node.id]), windows: [{ top: from.row, left: from.column, height: 1, width: 1 }],
        });
      },
    };
  }

  function added({ graph, origin }) {
    const lines = sum();
    const sources = origin.sources.map(id => graph.nodes[id]);
    const branches = sources.map(node => place(graph, node.name === "input" ? "the image" : "a branch", unit => ({ ...unit, node })));
    return [...branches, {
      title: "adds up", element: card("", lines.element),
      draw: (unit, values) => lines.draw([
        ...sources.map((node, i) => [`${i ? "+ " : ""}${node.name}`, at(values, node, unit)]),
        ["=", at(values, origin, unit)],
      ]),
    }];
  }

  function subsampled({ graph, origin }) {
    const node = graph.nodes[origin.sources[0]], [down, along] = origin.stride;
    const of = unit => ({ node, map: unit.map, row: unit.row * down, column: unit.column * along });
    return [place(graph, "reads", of, { isHidden: unit => unit.map >= node.shape[0] })];
  }

  const flattened = ({ graph, origin }) =>
    [place(graph, "reads", unit => convscape.graph.unitOfFlat(graph, origin, unit.map))];

  function given({ graph, origin, state }) {
    const lines = sum();
    return [{
      title: null, element: card("the number", lines.element),
      draw(unit, values) {
        const byte = state().pixels[(unit.map * origin.shape[1] + unit.row) * origin.shape[2] + unit.column];
        const { scale, shift } = convscape.document.normalize;
        lines.draw([["pixel, 0 to 255", byte], ["× scale", scale[unit.map]], ["+ shift", shift[unit.map]], ["=", at(values, graph.input, unit)]]);
      },
    }];
  }

  // --- what changes numbers one by one ---------------------------------------------------------------

  function elementwise({ graph, node }, layer) {
    const lines = sum();
    const f = layer.kind === "activation" ? convscape.engine.functions[layer.activation] : null;
    const plot = f && curve(`${layer.activation}: ${steps.functionWords[layer.activation]}`, f);
    const source = graph.nodes[layer.sources[0]];
    const made = card("", ...(plot ? [plot.element] : []), lines.element);
    made.classList.toggle("later", layer.id > node.id && node.id !== layer.id);
    return {
      title: layer.kind === "batch_norm" ? "normalises" : layer.kind === "dropout" ? "dropout (inactive)" : layer.activation.replace("_", " "),
      element: made,
      draw(unit, values) {
        const x = at(values, source, unit), y = at(values, layer, unit);
        plot?.draw(x);
        if (layer.kind === "activation") return lines.draw([[steps.functionWords[layer.activation], null], ["x", x], ["=", y]]);
        if (layer.kind === "dropout") return lines.draw([["active only in training", null], ["=", y]]);
        const { mean, deviation, gamma, beta } = steps.normalization(layer, unit.map);
        lines.draw([["x", x], ["− mean", mean], ["÷ deviation", deviation], ["× γ", gamma], ["+ β", beta], ["=", y]]);
      },
    };
  }

  // the last value of a class becomes its probability
  function softmaxCard({ graph, state }) {
    const lines = sum();
    return {
      title: "softmax", element: card("", lines.element),
      draw: unit => lines.draw([["e to this, divided by the sum over all classes", null], ["=", state().probabilities[unit.map]]]),
    };
  }

  const KINDS = {
    conv: weighted, dense: weighted, pool: pooled, global_pool: pooled, residual: added,
    subsample: subsampled, flatten: flattened, input: given,
  };

  function cardsOf(context) {
    const { graph, origin, node } = context;
    const of = KINDS[origin.kind] ?? (({ graph, origin }) => [place(graph, "reads", unit => ({ ...unit, node: graph.nodes[origin.sources[0]] }))]);
    const seen = graph.input.isVector ? [] : [fieldCard(context)];
    return [...seen, ...of(context), ...(node.classes ? [softmaxCard(context)] : [])];
  }

  convscape.kinds = { cardsOf, elementwise };
})();
