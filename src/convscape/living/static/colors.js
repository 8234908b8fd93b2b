"use strict";
/* One scale of colours for maps, kernels, products and links: zero is the colour of the paper,
   positive and negative values have a hue each; the page's style sheet says which. */
(() => {
  const convscape = (window.convscape ??= {});
  const STEPS = 255; // on each side of zero
  const GAMMA = 0.75; // so that small values can be seen
  let scale, gray, css;

  // the value of a custom property in the system's colour scheme
  function resolved(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    return found;
  }

  // as CSS; kept, since asking makes the browser compute styles
  const known = new Map();
  function variable(name) {
    if (!known.has(name)) known.set(name, `rgb(${resolved(name)})`);
    return known.get(name);
  }

  const mix = (a, b, part) => a.map((value, i) => Math.round(value * (1 - part) + b[i] * part));
  const packed = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red;

  function read() {
    known.clear();
    const [paper, ink] = [resolved("--paper"), resolved("--ink")];
    const ramp = (hue, part) =>
      part < 0.7 ? mix(paper, hue, part / 0.7) : mix(hue, ink, ((part - 0.7) / 0.3) * 0.5);
    const [positive, negative] = [resolved("--positive"), resolved("--negative")];
    const colors = [];
    for (let i = -STEPS; i <= STEPS; i++)
      colors.push(ramp(i < 0 ? negative : positive, (Math.abs(i) / STEPS) ** GAMMA));
    scale = Uint32Array.from(colors, packed);
    css = colors.map(color => `rgb(${color})`);
    gray = Uint32Array.from({ length: 256 }, (_, i) => packed([i, i, i]));
  }

  // a place in the scale; NaN counts as zero
  const place = (value, limit) => {
    const at = (value / limit) * STEPS;
    return at > STEPS ? 2 * STEPS : at < -STEPS ? 0 : at === at ? (at + STEPS + 0.5) | 0 : STEPS;
  };
  const color = (value, limit) => css[place(value, limit || 1)];
  // ink or paper: which can be read on that colour
  const onColor = (value, limit) =>
    (Math.abs(value) / (limit || 1)) ** GAMMA > 0.5 ? "var(--paper)" : "var(--ink)";

  // the largest absolute value
  function limitOf(values) {
    let largest = 0;
    for (let i = 0; i < values.length; i++) {
      const size = values[i] < 0 ? -values[i] : values[i];
      if (size > largest && size < Infinity) largest = size;
    }
    return largest || 1;
  }

  // paints a map into a picture of `across` pixels per row, from the pixel `at` on
  function paint(picture, across, at, values, from, height, width, limit) {
    const factor = STEPS / limit;
    for (let y = 0, i = from; y < height; y++)
      for (let x = 0, p = at + y * across; x < width; x++, i++, p++) {
        const step = values[i] * factor;
        picture[p] = scale[step > STEPS ? 2 * STEPS : step < -STEPS ? 0 : step === step ? (step + STEPS + 0.5) | 0 : STEPS];
      }
  }
  // bytes (C, H, W) with one channel or three
  function paintPixels(picture, across, at, pixels, [channels, height, width]) {
    const size = height * width;
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0, p = at + y * across; x < width; x++, i++, p++)
        picture[p] = channels === 3
          ? packed([pixels[i], pixels[size + i], pixels[2 * size + i]]) : gray[pixels[i]];
  }

  // a canvas with one pixel per unit, painted by `fill(picture)`
  function pictured(canvas, height, width, fill) {
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const data = new ImageData(width, height);
    fill(new Uint32Array(data.data.buffer));
    context.putImageData(data, 0, 0);
    return canvas;
  }

  convscape.colors = { read, variable, color, onColor, limitOf, paint, paintPixels, pictured };
})();
