"use strict";
/* The network changed by hand: type into a kernel, switch a map off, shuffle a layer's weights, add
   noise. The layer and the map are those selected in the network. */
(() => {
  const { weights, state } = convscape;
  const { element, written } = convscape.words;
  const MOST = 11; // rows and columns of a kernel that can be typed into
  // 3x3, for the first layer; Gonzalez and Woods, Digital Image Processing, chapter 3
  const CLASSIC = {
    "edges (Laplace)": [-1, -1, -1, -1, 8, -1, -1, -1, -1],
    "vertical edges (Sobel)": [-1, 0, 1, -2, 0, 2, -1, 0, 1],
    "horizontal edges (Sobel)": [-1, -2, -1, 0, 0, 0, 1, 2, 1],
    sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0],
    blur: [1, 2, 1, 2, 4, 2, 1, 2, 1].map((value) => value / 16),
    identity: [0, 0, 0, 0, 1, 0, 0, 0, 0],
  };

  let graph, page, before, shown = null, source = 0; // the unit, and which of its kernels
  const parts = {};

  /** The map with weights that made a unit: {node, map}; the first one if there is none. */
  function weighted(unit) {
    while (unit && unit.node.id && !weights.isWeighted(unit.node)) {
      if (unit.node.kind === "flatten") unit = convscape.graph.unitOfFlat(graph, unit.node, unit.map);
      else unit = { node: graph.nodes[unit.node.sources[0]], map: unit.map };
    }
    if (unit?.node.id) return { node: unit.node, map: Math.min(unit.map, unit.node.shape[0] - 1) };
    return { node: graph.nodes.find((node) => node.id && weights.isWeighted(node)), map: 0 };
  }

  /** The last layer that changes a map on its own: what other layers read. */
  const end = (node) => convscape.steps.onwards(graph, node).at(-1) ?? node;
  const tensors = (node) => convscape.network.layers[node.id - 1].tensors;

  function button(text, title, work) {
    const made = element("button", { type: "button", title }, text);
    made.addEventListener("click", work);
    return made;
  }
  function select(label, work) {
    const made = element("select", { "aria-label": label });
    made.addEventListener("change", () => work(made.value));
    return made;
  }
  const options = (made, names, value) => {
    made.replaceChildren(...names.map((name, i) => element("option", { value: i }, name)));
    made.value = value;
  };

  function start(room, found) {
    [graph, page] = [convscape.graph.current, found];
    if (!graph.nodes.some((node) => node.id && weights.isWeighted(node))) return;
    room.hidden = false;
    before = state.get().score;
    const layers = graph.nodes.filter((node) => node.id && weights.isWeighted(node));
    parts.summary = element("summary", {}, "Change the network");
    parts.score = element("output", { class: "score" });
    parts.layer = select("layer", (at) => choose(layers[at], 0));
    parts.map = select("map", (map) => choose(shown.node, Number(map)));
    parts.source = select("the map that the kernel reads", (map) => { source = Number(map); show(); });
    parts.classic = select("a classic kernel for this map", put);
    parts.off = element("input", { type: "checkbox" });
    parts.off.addEventListener("change", () => weights.switchMap(end(shown.node).id - 1, shown.map, parts.off.checked));
    parts.noise = element("input", { type: "range", min: 0, max: 3, step: 0.05, "aria-label": "noise, in standard deviations of the weights" });
    parts.everywhere = element("input", { type: "checkbox" });
    parts.noiseWords = element("output");
    parts.noise.addEventListener("input", () => {
      const nodes = parts.everywhere.checked ? layers : [shown.node];
      weights.disturb(nodes.map((node) => node.id - 1), Number(parts.noise.value));
    });
    parts.shuffle = button("Shuffle its weights", "the same numbers in a different order", () => weights.shuffle(shown.node.id - 1));
    parts.reset = button("Reset", "the weights of the run", () => weights.reset());
    parts.kernel = element("table", { class: "kernel" });
    parts.bias = numberField("bias", (value) => weights.edit(shown.node.id - 1, "bias", [[shown.map, value]]));
    parts.biasLabel = element("label", {}, "bias ", parts.bias);
    options(parts.layer, layers.map((node) => node.name), 0);
    options(parts.classic, ["a classic kernel …", ...Object.keys(CLASSIC)], 0);
    room.append(element("details", {}, parts.summary, body()), parts.score);
    room.querySelector("details").addEventListener("toggle", show);
    state.listen((_, changed) => {
      if (["selection", "weights", "score"].some((key) => changed.has(key))) show();
    });
    show();

    function choose(node, map) {
      const values = convscape.graph.values;
      if (values) convscape.view.choose(convscape.keys.strongest(node, map, values[node.id]));
      else convscape.view.choose({ node, map, row: 0, column: 0 });
    }
    function body() {
      parts.kernelWords = element("span", {}, "reads ", parts.source);
      const label = (text, ...of) => element("label", {}, text, ...of);
      parts.offLabel = label("", parts.off, " off");
      return element("div", { class: "body" },
        element("div", { class: "column" },
          element("div", { class: "tools" }, label("", parts.layer), label("", parts.map), parts.offLabel),
          element("div", { class: "tools" }, parts.shuffle, parts.reset),
          element("div", { class: "tools" }, label("noise ", parts.noise), parts.noiseWords, label("", parts.everywhere, " in all layers"))),
        element("div", { class: "column kernel-column" },
          element("div", { class: "tools" }, parts.kernelWords, parts.biasLabel, parts.classic), parts.kernel));
    }
  }

  function numberField(label, work) {
    const made = element("input", { type: "number", step: "any", "aria-label": label });
    made.addEventListener("input", () => {
      if (made.value !== "" && Number.isFinite(made.valueAsNumber)) work(made.valueAsNumber);
    });
    return made;
  }
  const fill = (field, value) => {
    if (field !== document.activeElement) field.value = Number(value.toPrecision(3));
    field.title = value;
  };

  /** Where the displayed kernel begins among the layer's weights. */
  const first = () => {
    const [tall, wide] = shown.node.kernel_size;
    return (shown.map * perMap() + source) * tall * wide;
  };
  const perMap = () => shown.node.reads[0] / shown.node.groups;

  /** Put a classic kernel into the middle of each kernel of the map; together they take the mean. */
  function put(at) {
    parts.classic.value = 0;
    const kernel = Object.values(CLASSIC)[at - 1];
    if (!kernel) return;
    const [tall, wide] = shown.node.kernel_size, count = perMap(), edits = [];
    const [top, left] = [Math.floor((tall - 3) / 2), Math.floor((wide - 3) / 2)];
    for (let c = 0; c < count; c++)
      for (let row = 0; row < tall; row++)
        for (let column = 0; column < wide; column++) {
          const [y, x] = [row - top, column - left], isIn = y >= 0 && y < 3 && x >= 0 && x < 3;
          edits.push([((shown.map * count + c) * tall + row) * wide + column, isIn ? kernel[3 * y + x] / count : 0]);
        }
    weights.edit(shown.node.id - 1, "weight", edits);
  }

  function show() {
    showScore();
    if (!parts.summary.parentElement.open) return;
    const unit = weighted(convscape.view.chosen()), { node, map } = unit;
    const isOther = shown?.node !== node;
    if (isOther || shown.map !== map) source = Math.min(source, node.kind === "conv" ? node.reads[0] / node.groups - 1 : 0);
    shown = unit;
    if (isOther) {
      parts.layer.value = [...parts.layer.options].findIndex((option) => option.textContent === node.name);
      options(parts.map, Array.from({ length: node.shape[0] }, (_, i) => convscape.graph.mapName(graph, node, i)), map);
    }
    parts.map.value = map;
    parts.off.checked = weights.isOff(end(node).id - 1, map);
    parts.offLabel.hidden = Boolean(end(node).classes); // 0 is not the lowest that a class can get
    parts.noise.value = weights.noise(node.id - 1);
    parts.noiseWords.textContent = `± ${written(weights.noise(node.id - 1))} standard deviations`;
    const { bias } = tensors(node);
    parts.biasLabel.hidden = !bias;
    if (bias) fill(parts.bias, bias[map]);
    showKernel(isOther);
  }

  function showKernel(isOther) {
    const { node, map } = shown;
    const [tall, wide] = node.kernel_size ?? [0, 0];
    const isShown = node.kind === "conv" && tall <= MOST && wide <= MOST;
    for (const each of [parts.kernel, parts.kernelWords]) each.hidden = !isShown;
    parts.classic.hidden = !(isShown && node.sources[0] === 0 && tall >= 3 && wide >= 3);
    if (!isShown) return;
    const group = Math.floor(map / (node.shape[0] / node.groups));
    const names = Array.from({ length: perMap() }, (_, i) =>
      convscape.graph.mapName(graph, graph.nodes[node.sources[0]], group * perMap() + i));
    options(parts.source, names, source);
    if (isOther) {
      const field = (row, column) => numberField(`row ${row + 1}, column ${column + 1}`, (value) =>
        weights.edit(shown.node.id - 1, "weight", [[first() + row * wide + column, value]]));
      parts.kernel.replaceChildren(...Array.from({ length: tall }, (_, row) =>
        element("tr", {}, ...Array.from({ length: wide }, (_, column) => element("td", {}, field(row, column))))));
    }
    const values = tensors(node).weight.subarray(first(), first() + tall * wide);
    const limit = convscape.colors.limitOf(values);
    parts.kernel.querySelectorAll("input").forEach((field, i) => {
      fill(field, values[i]);
      field.style.background = convscape.colors.color(values[i], limit);
      field.style.color = convscape.colors.onColor(values[i], limit);
    });
  }

  function showScore() {
    const { score } = state.get();
    const names = weights.changed().map((index) => convscape.network.layers[index].name);
    parts.reset.disabled = !names.length;
    parts.summary.textContent = names.length ? `Change the network: changed in ${names.join(", ")}` : "Change the network";
    if (!page.images.count) return;
    const now = score ? `${score.right} of the page's ${score.count} test images are right` : "counting …";
    const was = names.length ? `; ${before.right} before` : " (mistakes are shown first)";
    parts.score.textContent = now + (score ? was : "");
  }

  convscape.changes = { start };
})();
