"use strict";
/* Two networks side by side: the same image goes through both; answers and maps are in the same order. */
(() => {
  const { engine, colors } = convscape;
  const { element, by } = convscape.words;
  const FAIR = "The page prefers test images that the first network gets wrong, so these counts do not say which network is better; convscape compare does.";
  const MOST = 16; // maps of a layer
  const LIKELIEST = 3; // classes
  const WIDE = 512; // units of a vector, in one strip

  function start(room, found) {
    if (!found.beside) return;
    room.hidden = false;
    const other = engine.build(found.beside);
    const images = convscape.inputs.testImages(found);
    const columns = [
      column(found.run, found, () => convscape.network, (state) => state.activations),
      column(found.beside.run, found.beside, () => other, (state) => state.pixels && other.run(state.pixels)),
    ];
    room.append(element("h2", {}, "Side by side"), element("p", { class: "hint" }, FAIR), element("div", { class: "pair" }, ...columns.map((each) => each.element)));
    const draw = (state) => columns.forEach((each) => each.draw(state));
    convscape.state.listen((state, changed) => {
      if (changed.has("activations")) draw(state);
      if (changed.has("score")) columns[0].score(state.score);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(() => draw(convscape.state.get())));
    if (found.beside.right !== null) columns[1].score({ right: found.beside.right, count: images.length });
    convscape.beside.predict = (pixels) => Array.from(other.run(pixels)[other.last].values);
  }

  function column(name, { words }, network, through) {
    const verdict = element("p", { class: "verdict" }), score = element("p", { class: "hint" });
    const bars = element("ol", { class: "classes" });
    const rows = network().layers.filter((layer) => !["flatten", "dropout"].includes(layer.kind)).map((layer) => {
      const canvas = element("canvas", { role: "img", "aria-label": `${name}: ${layer.name}, ${by(layer.shape)}` });
      return { layer, canvas, element: element("div", { class: "row" }, element("span", {}, `${layer.name} ${by(layer.shape)}`), canvas) };
    });
    return {
      element: element("section", { "aria-label": name }, element("h3", {}, name), element("p", { class: "hint" }, words),
        score, verdict, bars, ...rows.map((row) => row.element)),
      score(found) {
        if (found?.count) score.textContent = `${found.right} of the page's ${found.count} test images are right`;
      },
      draw(state) {
        const activations = through(state);
        bars.hidden = !activations;
        for (const row of rows) row.element.hidden = !activations;
        if (!activations) return void (verdict.textContent = "No input, no answer.");
        const p = engine.softmax(activations[network().last].values);
        const order = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, LIKELIEST);
        verdict.replaceChildren(element("b", {}, convscape.classes[order[0]]), ` ${(100 * p[order[0]]).toFixed(1)} %`);
        bars.replaceChildren(...order.map((index) => element("li", {}, `${convscape.classes[index]} ${(100 * p[index]).toFixed(1)} %`)));
        for (const { layer, canvas } of rows) maps(canvas, activations[layer.index].values, layer.shape);
      },
    };
  }

  /** A layer's first maps in a row, or a vector as one strip. */
  function maps(canvas, values, [channels, height, width]) {
    const isVector = height * width === 1, limit = colors.limitOf(values);
    const count = isVector ? Math.min(channels, WIDE) : Math.min(channels, MOST), gap = isVector ? 0 : 1;
    canvas.classList.toggle("strip", isVector);
    colors.pictured(canvas, height, count * (width + gap) - gap, (picture) => {
      for (let map = 0; map < count; map++)
        colors.paint(picture, count * (width + gap) - gap, map * (width + gap), values, map * height * width, height, width, limit);
    });
  }

  convscape.beside = { start };
})();
