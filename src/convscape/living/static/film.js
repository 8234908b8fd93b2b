"use strict";
/* A window slides over a matrix: what it reads, its products, and the sum, position by position. */
(() => {
  const { engine } = convscape;
  const $ = (id) => document.getElementById(id);

  // ---- arithmetic of the window, as in geometry/window.py ----

  /** Padding [before, after] along an axis; "same" as in TensorFlow, with the odd pixel after. */
  function pads(size, kernel, stride, padding, dilation) {
    if (padding === "valid") return [0, 0];
    if (padding !== "same") return [padding, padding];
    const outputs = Math.ceil(size / stride);
    const total = Math.max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0);
    return [Math.floor(total / 2), total - Math.floor(total / 2)];
  }

  function outputSize(size, kernel, stride, padding, dilation) {
    const [before, after] = pads(size, kernel, stride, padding, dilation);
    return Math.floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1;
  }

  // ---- state: what was given, and the position ----

  const given = JSON.parse($("document").textContent), matrix = given.matrix;
  const state = { ...given, kernel: given.kernel ?? given.kernels.identity, position: 0 };
  state.pool_size = given.kind === "conv" ? [2, 2] : given.kernel_size;
  let timer = null, shown = null;

  /** The layer for the engine, or {wrong} with the reason. */
  function layer() {
    const isConv = state.kind === "conv", { stride } = state;
    const size = isConv ? [state.kernel.length, state.kernel[0].length] : state.pool_size;
    const dilation = isConv ? state.dilation : [1, 1];
    const reads = [1, matrix.length, matrix[0].length];
    const along = (a) => {
      const padding = typeof state.padding === "string" ? state.padding : state.padding[a];
      return [reads[a + 1], size[a], stride[a], padding, dilation[a]];
    };
    const around = [0, 1].map((a) => pads(...along(a)));
    const outputs = [0, 1].map((a) => outputSize(...along(a)));
    const formulas = [0, 1].map((a) => {
      const [length, kernel, step, , spread] = along(a), padding = around[a][0] + around[a][1];
      return `floor((${length} + ${padding} - ${spread * (kernel - 1) + 1}) / ${step}) + 1 = ${outputs[a]}`;
    });
    const formula = [...new Set(formulas)].join(" and ");
    const found = {
      kind: isConv ? "conv" : "pool", pool: state.kind, shape: [1, ...outputs], reads, stride, dilation,
      kernel_size: size, pads: around.flat(), circular: false, groups: 1, formula,
      tensors: { weight: Float32Array.from(state.kernel.flat()) },
    };
    if (Math.min(...outputs) < 1) found.wrong = `The window does not fit: ${formula}; make it smaller, or pad the input.`;
    else if (!isConv && [0, 1].some((a) => 2 * around[a][0] > size[a] && state.padding !== "same"))
      found.wrong = "The padding is more than half of the window, so a window could hold nothing but padding.";
    return found;
  }

  // ---- drawing ----

  const words = (value) => String(Number(value.toPrecision(4)));

  function element(tag, text = "", properties = {}) {
    const found = document.createElement(tag);
    found.textContent = text;
    return Object.assign(found, properties);
  }

  /** A tint for a value: warm above zero, cool below. */
  function tint(cell, value, most) {
    const share = Math.round(45 * Math.min(Math.abs(value) / (most || 1), 1));
    const colour = value < 0 ? "var(--negative)" : "var(--positive)";
    cell.style.background = `color-mix(in srgb, ${colour} ${share}%, var(--paper))`;
  }

  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

  /** What the window reads at the shown position: row and column in the matrix, the entry, whether it is inside. */
  function reading({ kernel_size: [tall, wide], stride, dilation, pads: [top, , left], reads, shape }) {
    const row = Math.floor(state.position / shape[2]), column = state.position % shape[2], found = [];
    for (let i = 0; i < tall; i++)
      for (let j = 0; j < wide; j++) {
        const y = row * stride[0] - top + i * dilation[0], x = column * stride[1] - left + j * dilation[1];
        found.push({ y, x, i, j, inside: y >= 0 && x >= 0 && y < reads[1] && x < reads[2] });
      }
    return found;
  }

  function drawInput(found) {
    const [top, bottom, left, right] = found.pads, most = largest(matrix.flat());
    const isConv = state.kind === "conv", read = new Map();
    for (const { y, x, i, j } of reading(found)) read.set(`${y},${x}`, isConv ? state.kernel[i][j] : null);
    const rows = [];
    for (let y = -top; y < matrix.length + bottom; y++) {
      const line = element("tr");
      for (let x = -left; x < matrix[0].length + right; x++) {
        const value = matrix[y]?.[x], outside = value === undefined;
        const cell = line.appendChild(element("td", outside ? (isConv ? "0" : "") : words(value)));
        if (outside) cell.className = "outside";
        else tint(cell, value, most);
        if (!read.has(`${y},${x}`)) continue;
        cell.classList.add("read");
        if (isConv) cell.append(element("small", `×${words(read.get(`${y},${x}`))}`));
      }
      rows.push(line);
    }
    $("input").replaceChildren(...rows);
  }

  function drawOutput(found, values) {
    const [, height, width] = found.shape, most = largest(values), rows = [];
    for (let y = 0; y < height; y++) {
      const line = element("tr");
      for (let x = 0; x < width; x++) {
        const at = y * width + x, known = at <= state.position, isNow = at === state.position;
        const cell = line.appendChild(element("td", known ? words(values[at]) : "", { tabIndex: isNow ? 0 : -1 }));
        if (known) tint(cell, values[at], most);
        if (isNow) cell.className = "now";
        cell.setAttribute("aria-label", `row ${y + 1}, column ${x + 1}${known ? `: ${words(values[at])}` : ""}`);
        cell.addEventListener("click", () => choose(at));
        cell.addEventListener("keydown", (event) => {
          const move = { ArrowUp: -width, ArrowDown: width, ArrowLeft: -1, ArrowRight: 1 }[event.key];
          if (move === undefined) return;
          event.preventDefault();
          choose(at + move);
        });
      }
      rows.push(line);
    }
    $("output").replaceChildren(...rows);
  }

  /** The sum, the maximum or the mean written out, as in Step.in_words. */
  function inWords(found, values) {
    const read = reading(found), result = words(values[state.position]);
    if (state.kind !== "conv")
      return `${state.kind === "max" ? "the largest" : "the mean"} of ${read.filter((r) => r.inside).map(({ y, x }) => words(matrix[y][x])).join(", ")} is ${result}`;
    const terms = read.map(({ y, x, i, j, inside }) =>
      `${words(inside ? matrix[y][x] : 0)}·${words(state.kernel[i][j])}`);
    return `${terms.join(" + ")} = ${result}`;
  }

  function drawKernel() {
    $("kernel-section").hidden = state.kind !== "conv";
    const rows = state.kernel.map((entries, i) => {
      const line = element("tr");
      entries.forEach((value, j) => {
        const input = element("input", "", { type: "number", step: "any", value: words(value) });
        input.setAttribute("aria-label", `kernel, row ${i + 1}, column ${j + 1}`);
        input.addEventListener("input", () => {
          if (!Number.isFinite(input.valueAsNumber)) return;
          state.kernel = state.kernel.map((row, y) => row.map((v, x) => (y === i && x === j ? input.valueAsNumber : v)));
          draw();
        });
        line.appendChild(element("td")).append(input);
      });
      return line;
    });
    $("kernel").replaceChildren(...rows);
  }

  function draw() {
    const found = layer();
    $("formula").className = found.wrong ? "wrong" : "";
    const sizes = `${found.reads[1]}x${found.reads[2]} gives ${found.shape[1]}x${found.shape[2]}`;
    $("formula").textContent = found.wrong ?? `${sizes}: ${found.formula}`;
    $("player").inert = Boolean(found.wrong);
    shown = found.wrong ? null : found;
    if (found.wrong) {
      stop();
      for (const id of ["input", "output", "sum"]) $(id).replaceChildren();
      return;
    }
    const values = Array.from(engine.compute(found, Float32Array.from(matrix.flat())));
    state.position = Math.min(state.position, values.length - 1);
    drawInput(found);
    drawOutput(found, values);
    $("sum").textContent = inWords(found, values);
    place.max = values.length - 1;
    place.value = state.position;
    count.textContent = `position ${state.position + 1} of ${values.length}`;
  }

  // ---- the player ----

  const button = element("button", "Play", { type: "button", id: "play" });
  const place = element("input", "", { type: "range", min: 0, id: "place" });
  const count = element("output");
  place.setAttribute("aria-label", "position");

  const num = () => shown.shape[1] * shown.shape[2];

  function go(position) {
    state.position = Math.max(0, Math.min(position, num() - 1));
    draw();
  }

  /** Go there by hand; the keys continue from that cell. */
  function choose(position) {
    stop();
    go(position);
    $("output").querySelector(".now").focus();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }

  function play() {
    button.textContent = "Pause";
    timer = setInterval(() => {
      state.position = (state.position + 1) % num();
      draw();
    }, 1000 / given.frames_per_second);
  }

  button.addEventListener("click", () => (timer === null ? play() : stop()));
  place.addEventListener("input", () => { stop(); go(Number(place.value)); });

  // ---- the controls ----

  const text = (pair) => (typeof pair === "string" ? pair : pair[0] === pair[1] ? String(pair[0]) : pair.join("x"));

  /** "2x1" or "2" as a pair. */
  function pair(written) {
    const parts = written.split("x").map(Number);
    return [parts[0], parts[parts.length - 1]];
  }

  function choice(key, label, options, parse) {
    const select = element("select", "", { id: key });
    const all = [...new Set([...options, text(state[key])])];
    select.append(...all.map((option) => element("option", option)));
    select.value = text(state[key]);
    select.addEventListener("change", () => {
      state[key] = parse(select.value);
      update();
    });
    const line = element("label", label);
    line.append(select);
    $("controls").append(line);
  }

  function update() {
    $("pool_size").parentElement.hidden = state.kind === "conv";
    for (const id of ["dilation", "named"]) $(id).parentElement.hidden = state.kind !== "conv";
    drawKernel();
    draw();
  }

  function start() {
    $("title").textContent = given.title;
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    choice("kind", "what", ["conv", "max", "avg"], (value) => value);
    choice("pool_size", "size", ["2", "3"], pair);
    choice("stride", "stride", ["1", "2", "3"], pair);
    choice("padding", "padding", ["valid", "same", "1", "2"], (v) => (/^[a-z]/.test(v) ? v : pair(v)));
    choice("dilation", "dilation", ["1", "2", "3"], pair);
    state.named = "as given";
    choice("named", "kernel", ["as given", ...Object.keys(given.kernels)], (name) => {
      state.kernel = given.kernels[name] ?? given.kernel ?? given.kernels.identity;
      return name;
    });
    $("player").append(button, place, count);
    update();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  }

  convscape.film = { pads, outputSize };
  start();
})();
