"use strict";
/* Changes an image by sliders: convscape.change.apply(pixels, shape, values, facts). Pure. */
(() => {
  const SEED = 20240229; // the same noise whenever another slider moves

  /** The sliders of images of H x W: [{key, name, unit, low, high, step, neutral}]. */
  function sliders([, height, width]) {
    const [down, across] = [Math.round(height / 2), Math.round(width / 2)];
    const least = Math.min(height, width);
    return [
      { key: "across", name: "move across", unit: "px", low: -across, high: across, step: 1, neutral: 0 },
      { key: "down", name: "move down", unit: "px", low: -down, high: down, step: 1, neutral: 0 },
      { key: "turn", name: "turn", unit: "°", low: -180, high: 180, step: 5, neutral: 0 },
      { key: "scale", name: "size", unit: "×", low: 0.3, high: 2, step: 0.05, neutral: 1 },
      { key: "noise", name: "noise", unit: "levels", low: 0, high: 128, step: 4, neutral: 0 },
      { key: "blur", name: "blur", unit: "px", low: 0, high: least / 7, step: least / 140, neutral: 0 },
      { key: "brightness", name: "brightness", unit: "×", low: 0, high: 2, step: 0.05, neutral: 1 },
      { key: "square", name: "grey square", unit: "px", low: 0, high: least, step: 1, neutral: 0 },
      { key: "squareAcross", name: "square across", unit: "px", low: 0, high: width, step: 1, neutral: across },
      { key: "squareDown", name: "square down", unit: "px", low: 0, high: height, step: 1, neutral: down },
    ];
  }

  /** One plane moved, turned clockwise and scaled about its middle; bilinear. */
  function placed(plane, height, width, { across, down, turn, scale }, ground) {
    const [cos, sin] = [Math.cos((turn * Math.PI) / 180), Math.sin((turn * Math.PI) / 180)];
    const [middleX, middleY] = [(width - 1) / 2, (height - 1) / 2];
    const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? ground : plane[y * width + x]);
    const result = new Float32Array(plane.length);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [dx, dy] = [x - middleX - across, y - middleY - down];
        const fromX = middleX + (cos * dx + sin * dy) / scale;
        const fromY = middleY + (cos * dy - sin * dx) / scale;
        const [left, top] = [Math.floor(fromX), Math.floor(fromY)];
        const [right, below] = [fromX - left, fromY - top];
        result[y * width + x] =
          (1 - below) * ((1 - right) * at(left, top) + right * at(left + 1, top)) +
          below * ((1 - right) * at(left, top + 1) + right * at(left + 1, top + 1));
      }
    }
    return result;
  }

  /** One plane blurred by a Gaussian of this width in pixels; the border is extended outside. */
  function blurred(plane, height, width, deviation) {
    const reach = Math.ceil(3 * deviation);
    const kernel = [];
    for (let i = -reach; i <= reach; i++) kernel.push(Math.exp((-i * i) / (2 * deviation ** 2)));
    const sum = kernel.reduce((a, b) => a + b, 0);
    const inside = (at, size) => Math.min(size - 1, Math.max(0, at));
    const wide = plane.map((_, at) => {
      const [y, x] = [Math.floor(at / width), at % width];
      return kernel.reduce((total, k, i) => total + k * plane[y * width + inside(x + i - reach, width)], 0) / sum;
    });
    return wide.map((_, at) => {
      const [y, x] = [Math.floor(at / width), at % width];
      return kernel.reduce((total, k, i) => total + k * wide[inside(y + i - reach, height) * width + x], 0) / sum;
    });
  }

  /** Numbers from 0 to 1, the same for each seed (mulberry32). */
  function uniforms(seed) {
    let state = (SEED + Math.imul(seed, 0x9e3779b1)) | 0;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** Numbers of a normal distribution, the same for each seed (Box and Muller 1958). */
  function normals(seed = 0) {
    const uniform = uniforms(seed);
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  /**
   * Pixels (C x H x W, bytes) after the sliders.
   *
   * - `facts`: `ground` fills in at the edges; the square has the training images' mean `brightness`.
   */
  function apply(pixels, [channels, height, width], values, facts) {
    const count = height * width;
    const result = new Uint8Array(pixels.length);
    const normal = normals();
    const isPlaced = values.across || values.down || values.turn || values.scale !== 1;
    for (let c = 0; c < channels; c++) {
      let plane = Float32Array.from(pixels.subarray(c * count, (c + 1) * count));
      if (isPlaced) plane = placed(plane, height, width, values, facts.ground[c]);
      if (values.blur > 0) plane = blurred(plane, height, width, values.blur);
      if (values.brightness !== 1) plane = plane.map((value) => value * values.brightness);
      if (values.noise > 0) plane = plane.map((value) => value + values.noise * normal());
      for (let at = 0; at < count; at++) {
        result[c * count + at] = Math.min(255, Math.max(0, Math.round(plane[at])));
      }
    }
    if (values.square > 0) cover(result, [channels, height, width], values, facts);
    return result;
  }

  function cover(pixels, [channels, height, width], { square, squareAcross, squareDown }, facts) {
    const grey = Math.round(255 * facts.brightness);
    const [top, left] = [squareDown, squareAcross].map((middle) => Math.round(middle - square / 2));
    for (let y = Math.max(0, top); y < Math.min(height, top + square); y++) {
      for (let x = Math.max(0, left); x < Math.min(width, left + square); x++) {
        for (let c = 0; c < channels; c++) pixels[(c * height + y) * width + x] = grey;
      }
    }
  }

  convscape.change = { sliders, apply, uniforms, normals };
})();
