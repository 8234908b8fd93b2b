"use strict";
/* From the first step to the last: the weights of each epoch that the run has kept, to drag to or
   play, under the curves of training and validation. */
(() => {
  const { engine, weights } = convscape;
  const { element, written } = convscape.words;
  const css = convscape.colors.variable;
  const STEP_MS = 600; // per epoch, when played
  const HEIGHT = 52; // of the curves

  function start(room, { timeline: found }) {
    if (!found) return;
    room.hidden = false;
    const { epochs, curves } = found, last = epochs.length - 1;
    const own = convscape.network.layers.map((layer) => layer.tensors); // of the chosen epoch, in float32
    const unpacked = new Map();
    let at = found.chosen ?? last, timer = null;

    const range = element("input", { type: "range", min: 0, max: last, step: 1, value: at, "aria-label": "epoch" });
    const button = element("button", { type: "button", class: "play" }, "▶ play");
    const words = element("output");
    const charts = ["acc", "loss"].map((metric) => chart(metric, curves)).filter(Boolean);
    room.append(element("h2", {}, "How it was trained"), element("div", { class: "charts" }, ...charts.map((each) => each.element)),
      element("div", { class: "tools" }, button, range, words));
    range.addEventListener("input", () => { stop(); go(Number(range.value)); });
    button.addEventListener("click", () => (timer ? stop() : play()));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(show));
    new ResizeObserver(show).observe(room);
    show();

    function tensorsOf(index) {
      if (index === found.chosen) return own;
      if (!unpacked.has(index))
        unpacked.set(index, epochs[index].tensors.map((layer) =>
          Object.fromEntries(Object.entries(layer).map(([name, values]) => [name, engine.unpack(values)]))));
      return unpacked.get(index);
    }

    function go(index) {
      at = index;
      const isOwn = at === found.chosen;
      weights.give(tensorsOf(at), isOwn ? null : `These are the weights after epoch ${epochs[at].epoch}`);
      show();
    }

    function play() {
      button.textContent = "❚❚ pause";
      go(at === last ? 0 : at);
      const tick = () => {
        if (at === last) return stop();
        go(at + 1);
        timer = setTimeout(tick, STEP_MS);
      };
      timer = setTimeout(tick, STEP_MS);
    }
    function stop() {
      clearTimeout(timer);
      timer = null;
      button.textContent = "▶ play";
    }

    function show() {
      const { epoch, step } = epochs[at];
      range.value = at;
      const said = ["train/acc", "val/acc"].filter((name) => curves[name]?.[epoch - 1] != null)
        .map((name) => `${name} ${(100 * curves[name][epoch - 1]).toFixed(1)} %`);
      const place = epoch ? `epoch ${epoch}, step ${step.toLocaleString("en")}` : "before the first step";
      const chosen = at === found.chosen ? ["the chosen epoch"] : [];
      const sampled = found.left_out ? [`${epochs.length} of ${epochs.length + found.left_out} epochs fit this page`] : [];
      words.textContent = [place, ...said, ...chosen, ...sampled].join("; ");
      range.setAttribute("aria-valuetext", [place, ...said].join("; "));
      for (const each of charts) each.draw(epoch);
    }
  }

  /** A metric over the epochs: training thin, validation bold, a line at the current epoch. */
  function chart(metric, curves) {
    const rows = [["train", curves[`train/${metric}`]], ["val", curves[`val/${metric}`]]].filter(([, values]) => values);
    if (!rows.length) return null;
    const canvas = element("canvas", { role: "img" });
    const known = rows.flatMap(([, values]) => values).filter((value) => value !== null);
    const count = rows[0][1].length;
    const low = metric === "loss" ? 0 : Math.min(...known), high = metric === "loss" ? Math.max(...known) : 1;
    const scores = rows.map(([name, values]) => `${name} from ${written(values[0] ?? NaN)} to ${written(values.at(-1) ?? NaN)}`);
    canvas.setAttribute("aria-label", `${metric} over ${count} epochs: ${scores.join(", ")}`);
    function draw(epoch) {
      const width = canvas.parentElement.clientWidth, scale = devicePixelRatio;
      [canvas.width, canvas.height] = [width * scale, HEIGHT * scale];
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const x = (number) => 40 + (number / count) * (width - 46);
      const y = (value) => 5 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - 10);
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = css("--faint");
      context.fillText(written(high, 2), 2, 12);
      context.fillText(written(low, 2), 2, HEIGHT - 3);
      rows.forEach(([name, values]) => {
        context.strokeStyle = context.fillStyle = css(name === "val" ? "--positive" : "--faint");
        context.lineWidth = name === "val" ? 2 : 1;
        context.beginPath();
        values.forEach((value, i) => {
          if (value === null) return;
          if (i && values[i - 1] !== null) context.lineTo(x(i + 1), y(value));
          else context.moveTo(x(i + 1), y(value));
          context.fillRect(x(i + 1) - 1.5, y(value) - 1.5, 3, 3);
        });
        context.stroke();
      });
      context.strokeStyle = css("--accent");
      context.lineWidth = 1;
      context.strokeRect(x(epoch), 0, 0.01, HEIGHT);
    }
    const legend = element("figcaption", {}, `${metric}: `, ...rows.flatMap(([name]) => [element("span", { class: name }, name), " "]));
    return { element: element("figure", {}, canvas, legend), draw };
  }

  convscape.timeline = { start };
})();
