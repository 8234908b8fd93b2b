"use strict";
/* The parts of a detail: maps with a window on them, tables of coloured numbers, bars, curves. Each
   keeps its elements and rewrites their contents, so that a film of it runs smoothly. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written } = convscape.words;
  const colors = convscape.colors;
  const [WITH_DIGITS, SIDE] = [7, 98]; // widest table that shows digits, in cells; side of a map, in pixels

  const { variable } = colors;

  // three digits in a narrow cell
  const digits = value => {
    const size = Math.abs(value);
    if (!(size < 1e4)) return written(value, 2);
    return value.toFixed(size < 1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0).replace("-", "−");
  };

  function card(title, ...children) {
    return element("section", { class: "card" }, element("h3", {}, title), ...children);
  }

  // --- a map, and the windows on it ---------------------------------------------------------------

  function mapCanvas(label, side = SIDE) {
    const canvas = element("canvas", { class: "map", role: "img", "aria-label": label });
    const picture = element("canvas");
    let drawn = null;
    // values from `from` on; windows [{top, left, height, width, dots}]; pads around [t, b, l, r];
    // only the first `until` units are opaque, the others are still to come
    function draw({ values, from, shape, limit, pixels, pads = [0, 0, 0, 0], windows = [], dots = [], until }) {
      const [channels, height, width] = shape;
      const [top, bottom, left, right] = pads.map(pad => Math.max(0, pad));
      const [rows, columns] = [height + top + bottom, width + left + right];
      const unit = side / Math.max(rows, columns);
      const scale = devicePixelRatio;
      canvas.width = Math.round(columns * unit * scale);
      canvas.height = Math.round(rows * unit * scale);
      canvas.style.width = `${columns * unit}px`;
      canvas.style.height = `${rows * unit}px`;
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.imageSmoothingEnabled = false;
      context.fillStyle = variable("--line");
      context.globalAlpha = 0.45; // padding
      context.fillRect(0, 0, columns * unit, rows * unit);
      context.globalAlpha = 1;
      colors.pictured(picture, height, width, target => pixels
        ? colors.paintPixels(target, width, 0, pixels, [channels === 3 ? 3 : 1, height, width])
        : colors.paint(target, width, 0, values, from, height, width, limit));
      context.drawImage(picture, left * unit, top * unit, width * unit, height * unit);
      if (until !== undefined) veil(context, until, height, width, unit, left, top);
      context.strokeStyle = context.fillStyle = variable("--accent");
      for (const window of windows) frame(context, window, unit, top, left);
      for (const [y, x] of dots)
        context.fillRect((x + left + 0.5) * unit - Math.max(1, unit / 5), (y + top + 0.5) * unit - Math.max(1, unit / 5),
          Math.max(2, unit / 2.5), Math.max(2, unit / 2.5));
      drawn = { unit, top, left, height, width };
    }
    function veil(context, until, height, width, unit, left, top) {
      const row = Math.floor(until / width), column = until % width;
      context.fillStyle = variable("--paper");
      context.globalAlpha = 0.82;
      context.fillRect((left + column) * unit, (top + row) * unit, (width - column) * unit, unit);
      context.fillRect(left * unit, (top + row + 1) * unit, width * unit, (height - row - 1) * unit);
      context.globalAlpha = 1;
    }
    // the unit under the pointer
    function at(event) {
      const box = canvas.getBoundingClientRect();
      const along = (event.clientX - box.left) / drawn.unit - drawn.left, down = (event.clientY - box.top) / drawn.unit - drawn.top;
      return {
        row: Math.min(drawn.height - 1, Math.max(0, Math.floor(down))),
        column: Math.min(drawn.width - 1, Math.max(0, Math.floor(along))),
      };
    }
    return { element: canvas, draw, at };
  }

  // with dilation, the units that are read are spread out in their frame
  function frame(context, { top: y, left: x, height, width, dilation = [1, 1] }, unit, top, left) {
    context.lineWidth = 2;
    context.strokeRect((x + left) * unit, (y + top) * unit, width * unit, height * unit);
    if (Math.max(...dilation) === 1) return;
    for (let i = 0; i < height; i += dilation[0])
      for (let j = 0; j < width; j += dilation[1])
        context.strokeRect((x + j + left) * unit + 0.5, (y + i + top) * unit + 0.5, unit - 1, unit - 1);
  }

  // --- tables of numbers --------------------------------------------------------------------------

  // coloured cells; three digits if they fit, all digits on hover
  function table(caption) {
    const body = element("tbody");
    const made = element("table", { class: "cells" }, element("caption", {}, caption), body);
    let shape = "";
    function draw(values, [height, width], { limit, kept = null, nameless = "outside" } = {}) {
      limit ??= colors.limitOf(values.map(value => value ?? 0));
      const small = Math.max(height, width) > WITH_DIGITS;
      if (shape !== `${height} ${width}`) {
        shape = `${height} ${width}`;
        made.classList.toggle("small", small);
        made.style.setProperty("--cell", `${Math.max(2, Math.floor(SIDE / Math.max(height, width)))}px`);
        body.replaceChildren(...Array.from({ length: height }, () =>
          element("tr", {}, ...Array.from({ length: width }, () => element("td")))));
      }
      const cells = body.querySelectorAll("td");
      for (let i = 0; i < cells.length; i++) {
        const cell = cells[i], value = values[i];
        const isOutside = value === null;
        cell.className = isOutside ? "outside" : i === kept ? "kept" : "";
        cell.style.background = isOutside ? "" : colors.color(value, limit);
        cell.style.color = isOutside ? "" : colors.onColor(value, limit);
        if (!small) cell.textContent = isOutside ? "·" : digits(value);
        cell.title = isOutside ? nameless : String(value);
        cell.dataset.value = isOutside ? "" : value;
      }
    }
    return { element: made, draw };
  }

  // --- bars -----------------------------------------------------------------------------------------

  // a bar for each of many numbers, upwards or downwards from zero; one is chosen
  function bars(label, pick) {
    const canvas = element("canvas", { class: "bars", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 1 });
    let count = 1, place = 0;
    function draw(values, at, words) {
      [count, place] = [values.length, at];
      canvas.setAttribute("aria-valuemax", count);
      canvas.setAttribute("aria-valuenow", at + 1);
      canvas.setAttribute("aria-valuetext", words);
      const [width, height] = [128, 64], scale = devicePixelRatio;
      [canvas.width, canvas.height] = [width * scale, height * scale];
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const limit = colors.limitOf(values), step = width / count;
      const tones = [variable("--negative"), variable("--positive")];
      context.fillStyle = variable("--line");
      context.fillRect(0, height / 2, width, 1);
      values.forEach((value, i) => {
        const tall = (value / limit) * (height / 2 - 3);
        context.fillStyle = tones[value > 0 ? 1 : 0];
        context.fillRect(i * step, height / 2, Math.max(0.6, step - (step > 3 ? 1 : 0)), -tall || 0);
      });
      context.strokeStyle = variable("--ink");
      context.lineWidth = 1.5;
      context.strokeRect(at * step - 0.5, 1, Math.max(2, step), height - 2);
    }
    const within = i => Math.min(count - 1, Math.max(0, i));
    canvas.addEventListener("click", event => pick(within(Math.floor((event.offsetX / canvas.clientWidth) * count))));
    canvas.addEventListener("keydown", event => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -count, End: count };
      if (!(event.key in steps)) return;
      pick(within(place + steps[event.key]));
      event.preventDefault();
    });
    return { element: canvas, draw };
  }

  // --- a curve and the point on it ------------------------------------------------------------------

  function curve(label, f) {
    const canvas = element("canvas", { class: "curve", role: "img", "aria-label": label });
    function draw(x) {
      const [width, height] = [98, 80], scale = devicePixelRatio;
      [canvas.width, canvas.height] = [width * scale, height * scale];
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const reach = Math.max(2, Math.abs(x) * 1.25);
      const samples = Array.from({ length: 61 }, (_, i) => (i / 30 - 1) * reach);
      const [low, high] = [Math.min(-0.2 * reach, ...samples.map(f)), Math.max(0.4 * reach, ...samples.map(f))];
      const across = v => ((v / reach + 1) / 2) * (width - 8) + 4;
      const up = v => height - 5 - ((v - low) / (high - low)) * (height - 10);
      const line = (...points) => {
        context.beginPath();
        points.forEach(([a, b], i) => (i ? context.lineTo(a, b) : context.moveTo(a, b)));
        context.stroke();
      };
      context.strokeStyle = variable("--line");
      line([0, up(0)], [width, up(0)]);
      line([across(0), 0], [across(0), height]);
      context.lineWidth = 2;
      context.strokeStyle = variable("--ink");
      line(...samples.map(v => [across(v), up(f(v))]));
      context.strokeStyle = context.fillStyle = variable("--accent");
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      line([across(x), up(0)], [across(x), up(f(x))], [across(0), up(f(x))]);
      context.beginPath();
      context.arc(across(x), up(f(x)), 4.5, 0, 7);
      context.fill();
    }
    return { element: canvas, draw };
  }

  // lines of words and numbers: [words, number or null]
  function sum() {
    const body = element("tbody");
    const made = element("table", { class: "sum" }, body);
    function draw(lines) {
      body.replaceChildren(...lines.map(([words, value], i) =>
        element("tr", { class: i === lines.length - 1 ? "result" : null }, element("th", { scope: "row" }, words),
          element("td", { title: value, "data-value": value }, typeof value === "number" ? written(value) : value ?? ""))));
    }
    return { element: made, draw };
  }

  convscape.cards = { card, mapCanvas, table, bars, curve, sum };
})();
