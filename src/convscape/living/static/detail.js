"use strict";
/* How the selected unit was computed, step by step; "play" slides its window over the whole map. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written } = convscape.words;
  const { card } = convscape.cards;

  let graph, room, state;
  let parts = null; // the cards of the shown node
  let film = null; // the timer of "play"
  const head = {};

  function start(room_) {
    [room, graph] = [room_, convscape.graph.current];
    head.title = element("h2", { "aria-live": "polite" });
    head.play = element("button", { type: "button", class: "play" }, "▶ play");
    head.close = element("button", { type: "button", "aria-label": "close the detail" }, "✕");
    head.steps = element("div", { class: "steps" });
    head.hint = element("p", { class: "hint" },
      "Point at a tile to see what it reads; click it, or reach it with Tab and press Enter, to see how it was computed.");
    room.append(element("div", { class: "bar" }, head.title, head.play, head.close), head.hint, head.steps);
    head.play.addEventListener("click", () => (film ? stop() : play()));
    head.close.addEventListener("click", () => convscape.view.choose(null));
    room.addEventListener("keydown", event => event.key === "Escape" && convscape.view.choose(null));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(show));
    convscape.state.listen(follow);
  }

  function follow(next, changed) {
    state = next;
    if (["selection", "activations"].some(key => changed.has(key))) show();
  }

  function show() {
    const values = convscape.graph.values, unit = values && convscape.view.chosen();
    const was = parts?.node;
    room.classList.toggle("open", Boolean(unit));
    for (const each of [head.play, head.close, head.steps]) each.hidden = !unit;
    head.hint.hidden = Boolean(unit);
    if (!unit) {
      stop();
      parts = null;
      head.title.textContent = "";
      return;
    }
    if (was !== unit.node) {
      stop();
      parts = build(unit);
      head.steps.replaceChildren(...parts.cards.map(each => each.element));
      head.steps.scrollLeft = 0;
    }
    const [, height, width] = unit.node.shape;
    const value = values[unit.node.id][(unit.map * height + unit.row) * width + unit.column];
    head.title.textContent = `${unit.node.name}, ${convscape.graph.unitName(graph, unit)} = ${written(value)}`
      + (convscape.weights.isOff(unit.node.id - 1, unit.map) ? " (switched off)" : "");
    head.title.dataset.value = value;
    head.play.hidden = unit.node.isVector || unit.node.id === 0;
    for (const each of parts.cards) each.draw(unit, values);
  }

  // the cards: what computes the numbers, what then changes them, and the map they are in
  function build({ node }) {
    const origin = convscape.steps.origin(graph, node);
    const then = origin.id ? convscape.steps.onwards(graph, origin) : [];
    const film_ = { until: () => (film ? film.until : undefined) };
    const context = { graph, origin, node, state: () => state, redraw: show, ...film_ };
    const made = convscape.kinds.cardsOf(context);
    const number = made.length;
    then.forEach((each, i) => made.push(convscape.kinds.elementwise(context, each, i + number)));
    if (node.id && !node.isVector) made.push(resultCard(context));
    made.forEach((each, i) => each.title && (each.element.querySelector("h3").textContent = `${i} · ${each.title}`));
    return { node, cards: made };
  }

  // the whole map: choose another unit with the pointer or the arrow keys
  function resultCard({ node, until }) {
    const map = convscape.cards.mapCanvas("");
    map.element.setAttribute("tabindex", 0);
    map.element.setAttribute("role", "application");
    const words = element("p");
    const made = card("", map.element, words);
    made.classList.add("made");
    const go = (row, column) => {
      const [, height, width] = node.shape;
      const unit = convscape.view.chosen();
      stop();
      convscape.view.choose({ ...unit, row: Math.min(height - 1, Math.max(0, row)), column: Math.min(width - 1, Math.max(0, column)) });
    };
    map.element.addEventListener("pointerdown", event => {
      map.element.setPointerCapture(event.pointerId);
      const { row, column } = map.at(event);
      go(row, column);
    });
    map.element.addEventListener("pointermove", event => {
      if (!event.buttons) return;
      const { row, column } = map.at(event);
      go(row, column);
    });
    map.element.addEventListener("keydown", event => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const { row, column } = convscape.view.chosen() ?? {};
      if (step) go(row + step[0], column + step[1]);
      else if (event.key === " ") film ? stop() : play();
      else return;
      event.preventDefault();
    });
    return {
      element: made, title: "the map",
      draw(unit, values) {
        const [, height, width] = node.shape;
        const name = convscape.graph.unitName(graph, unit);
        map.element.setAttribute("aria-label", `${name}: arrow keys choose a unit, space plays`);
        map.draw({
          values: values[node.id], from: unit.map * height * width, shape: [1, height, width],
          limit: convscape.colors.limitOf(values[node.id]), until: until(),
          windows: [{ top: unit.row, left: unit.column, height: 1, width: 1 }],
        });
        words.textContent = `row ${unit.row + 1}, column ${unit.column + 1}`;
      },
    };
  }

  // --- play -----------------------------------------------------------------------------------------

  const WHOLE_MS = 12000, SLOWEST_MS = 350; // a whole map of the default network; one unit of a small map

  function play() {
    const unit = convscape.view.chosen();
    const [, height, width] = unit.node.shape, count = height * width;
    const pace = Math.min(SLOWEST_MS, WHOLE_MS / count);
    const first = unit.row * width + unit.column + 1 < count ? unit.row * width + unit.column : 0;
    head.play.textContent = "❚❚ pause";
    film = { until: first + 1 };
    const begun = performance.now();
    const step = now => {
      if (!film) return;
      const place = Math.min(count - 1, first + Math.max(0, Math.floor((now - begun) / pace)));
      film.until = place + 1;
      const at = convscape.view.chosen();
      if (at.row * width + at.column !== place)
        convscape.view.choose({ ...at, row: Math.floor(place / width), column: place % width });
      if (place < count - 1) film.frame = requestAnimationFrame(step);
      else {
        stop();
        requestAnimationFrame(show);
      }
    };
    film.frame = requestAnimationFrame(step);
  }

  function stop() {
    if (!film) return;
    cancelAnimationFrame(film.frame);
    film = null;
    head.play.textContent = "▶ play";
    requestAnimationFrame(show);
  }

  convscape.detail = { start };
})();
