"use strict";
// From a drawn or dropped picture to an input for the network, made as its data were made. Pure:
// pictures are {width, height, rgba}, planes are Float32Array of H x W, ink is 0..1.
(() => {
  const convscape = (globalThis.convscape = globalThis.convscape || {});
  const LUMA = [19595, 38470, 7471]; // of 65536: Pillow's ITU-R BT.601
  const BLANK_LEVELS = 24; // a picture that varies by less than this, out of 255, shows nothing
  const BLOCKS = 6; // a photograph's background is estimated in this many places along each side
  const SHADED_SIDE = 100; // pixels; a smaller picture has one background
  const SPECK = 0.02; // parts with less than this share of the ink are dirt
  const WORKING_SIDE = 128; // pixels of the longer side while strokes are made thicker or thinner
  const TRIES = 6;

  // ---- pictures as planes ----

  /** Planes of 0..255: one grey or three in colour; transparent parts become white. */
  function planesOf(picture, channels) {
    const rgba = picture.rgba;
    const count = picture.width * picture.height;
    const planes = Array.from({ length: channels }, () => new Float32Array(count));
    for (let at = 0; at < count; at++) {
      const alpha = rgba[4 * at + 3] / 255;
      const r = Math.round(255 + alpha * (rgba[4 * at] - 255));
      const g = Math.round(255 + alpha * (rgba[4 * at + 1] - 255));
      const b = Math.round(255 + alpha * (rgba[4 * at + 2] - 255));
      if (channels === 1) {
        planes[0][at] = (r * LUMA[0] + g * LUMA[1] + b * LUMA[2] + 0x8000) >> 16;
      } else {
        planes[0][at] = r;
        planes[1][at] = g;
        planes[2][at] = b;
      }
    }
    return planes;
  }

  /** The weights that turn the `size` pixels between `low` and `high` into `count`. */
  function weights(size, low, high, count) {
    const scale = (high - low) / count;
    const reach = Math.max(scale, 1);
    return Array.from({ length: count }, (_, place) => {
      const center = low + (place + 0.5) * scale;
      const first = Math.max(0, Math.trunc(center - reach + 0.5));
      const last = Math.min(size, Math.trunc(center + reach + 0.5));
      const found = [];
      for (let at = first; at < last; at++) {
        found.push(Math.max(0, 1 - Math.abs((at - center + 0.5) / reach)));
      }
      const sum = found.reduce((a, b) => a + b, 0) || 1;
      return { first, found: found.map((weight) => weight / sum) };
    });
  }

  /**
   * A part of a plane, resized: Pillow's BILINEAR, a triangle as wide as an output pixel.
   *
   * `part` is [left, top, right, bottom]; with `isRounded` each pass gives whole numbers, as in
   * Pillow.
   */
  function resample(plane, width, height, part, newWidth, newHeight, isRounded = false) {
    const [left, top, right, bottom] = part;
    const kept = (value) => (isRounded ? Math.min(255, Math.max(0, Math.round(value))) : value);
    const along = weights(width, left, right, newWidth);
    const down = weights(height, top, bottom, newHeight);
    const wide = new Float32Array(newWidth * height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < newWidth; column++) {
        const { first, found } = along[column];
        let sum = 0;
        for (let i = 0; i < found.length; i++) sum += found[i] * plane[row * width + first + i];
        wide[row * newWidth + column] = kept(sum);
      }
    }
    const result = new Float32Array(newWidth * newHeight);
    for (let row = 0; row < newHeight; row++) {
      const { first, found } = down[row];
      for (let column = 0; column < newWidth; column++) {
        let sum = 0;
        for (let i = 0; i < found.length; i++) sum += found[i] * wide[(first + i) * newWidth + column];
        result[row * newWidth + column] = kept(sum);
      }
    }
    return result;
  }

  /** A plane cropped to the ratio of the wanted size, as by Pillow's ImageOps.fit. */
  function covered(plane, width, height, newWidth, newHeight) {
    if (width === newWidth && height === newHeight) return plane;
    const ratio = newWidth / newHeight;
    const isWide = width / height >= ratio;
    const keptWidth = isWide ? ratio * height : width;
    const keptHeight = isWide ? height : width / ratio;
    const left = (width - keptWidth) / 2;
    const top = (height - keptHeight) / 2;
    const part = [left, top, left + keptWidth, top + keptHeight];
    return resample(plane, width, height, part, newWidth, newHeight, true);
  }

  // ---- ink ----

  const quantile = (values, share) => {
    const sorted = Float32Array.from(values).sort();
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  };

  function border(plane, width, height) {
    const found = [];
    for (let x = 0; x < width; x++) found.push(plane[x], plane[(height - 1) * width + x]);
    for (let y = 0; y < height; y++) found.push(plane[y * width], plane[y * width + width - 1]);
    return found;
  }

  /** The brightness of the paper at each pixel; uneven in a photograph. */
  function groundOf(plane, width, height, isLight) {
    const ground = new Float32Array(plane.length).fill(quantile(border(plane, width, height), 0.5));
    if (Math.min(width, height) < SHADED_SIDE) return ground;
    const blocks = new Float32Array(BLOCKS * BLOCKS);
    for (let by = 0; by < BLOCKS; by++) {
      for (let bx = 0; bx < BLOCKS; bx++) {
        const values = [];
        const [y0, y1] = [by, by + 1].map((b) => Math.floor((b * height) / BLOCKS));
        const [x0, x1] = [bx, bx + 1].map((b) => Math.floor((b * width) / BLOCKS));
        for (let y = y0; y < y1; y += 2) {
          for (let x = x0; x < x1; x += 2) values.push(plane[y * width + x]);
        }
        blocks[by * BLOCKS + bx] = quantile(values, isLight ? 0.8 : 0.2);
      }
    }
    return resample(blocks, BLOCKS, BLOCKS, [0, 0, BLOCKS, BLOCKS], width, height);
  }

  /** The threshold between two groups of values of 0..255 (Otsu 1979). */
  function between(values) {
    const counts = new Float64Array(256);
    for (const value of values) counts[Math.min(255, Math.max(0, Math.round(value)))]++;
    let [total, sum] = [values.length, 0];
    for (let level = 0; level < 256; level++) sum += level * counts[level];
    let [below, sumBelow, best, chosen] = [0, 0, -1, 127];
    for (let level = 0; level < 256; level++) {
      below += counts[level];
      sumBelow += level * counts[level];
      if (below === 0 || below === total) continue;
      const gap = sumBelow / below - (sum - sumBelow) / (total - below);
      const spread = below * (total - below) * gap * gap;
      if (spread > best) [best, chosen] = [spread, level];
    }
    return chosen;
  }

  /** Whether a grey plane shows dark on light. */
  const isDarkOnLight = (plane, width, height) => quantile(border(plane, width, height), 0.5) > 127;

  /** What was drawn, 0 to 1, without the paper; null if there is nothing. */
  function inkOf(plane, width, height, isLight) {
    const ground = groundOf(plane, width, height, isLight);
    const contrast = plane.map((value, at) => Math.max(0, isLight ? ground[at] - value : value - ground[at]));
    if (contrast.reduce((a, b) => Math.max(a, b), 0) < BLANK_LEVELS) return null;
    const middle = between(contrast);
    let [sum, count] = [0, 0];
    for (const value of contrast) if (value > middle) [sum, count] = [sum + value, count + 1];
    if (count === 0) return null;
    const [low, high] = [middle / 2, Math.max((0.9 * sum) / count, middle + 1)];
    return contrast.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
  }

  /** Set dirt to 0, in place; returns how many pieces there were. */
  function clean(ink, width, height) {
    const seen = new Uint8Array(ink.length);
    const parts = [];
    for (let start = 0; start < ink.length; start++) {
      if (seen[start] || ink[start] < 0.25) continue;
      const part = [start];
      seen[start] = 1;
      for (let next = 0; next < part.length; next++) {
        const [x, y] = [part[next] % width, Math.floor(part[next] / width)];
        for (let dy = -1; dy <= 1; dy++) {
          for (let dx = -1; dx <= 1; dx++) {
            const at = (y + dy) * width + x + dx;
            const isInside = x + dx >= 0 && x + dx < width && y + dy >= 0 && y + dy < height;
            if (isInside && !seen[at] && ink[at] >= 0.25) {
              seen[at] = 1;
              part.push(at);
            }
          }
        }
      }
      parts.push(part);
    }
    const total = parts.reduce((sum, part) => sum + part.length, 0);
    const specks = parts.filter((part) => part.length < SPECK * total);
    for (const part of specks) for (const at of part) ink[at] = 0;
    return specks.length;
  }

  /** [left, top, right, bottom] of the ink; null if there is none. */
  function boxOf(ink, width, height, level = 0.5) {
    let [left, top, right, bottom] = [width, height, 0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (ink[y * width + x] < level) continue;
        [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
      }
    }
    return right > left ? [left, top, right, bottom] : null;
  }

  // ---- strokes ----

  /** Squared distance to the nearest position where `cost` is 0 (Felzenszwalb, Huttenlocher 2012). */
  function squaredDistances(cost, width, height) {
    const longest = Math.max(width, height);
    const [values, places, bounds] = [longest, longest, longest + 1].map((n) => new Float64Array(n));
    const line = (first, step, count) => {
      for (let i = 0; i < count; i++) values[i] = cost[first + i * step];
      let last = 0;
      [places[0], bounds[0], bounds[1]] = [0, -Infinity, Infinity];
      for (let q = 1; q < count; q++) {
        let where;
        for (;;) {
          const p = places[last];
          where = (values[q] + q * q - values[p] - p * p) / (2 * (q - p));
          if (where > bounds[last]) break;
          last--;
        }
        places[++last] = q;
        bounds[last] = where;
        bounds[last + 1] = Infinity;
      }
      for (let q = 0, k = 0; q < count; q++) {
        while (bounds[k + 1] < q) k++;
        cost[first + q * step] = (q - places[k]) ** 2 + values[places[k]];
      }
    };
    for (let x = 0; x < width; x++) line(x, width, height);
    for (let y = 0; y < height; y++) line(y * width, 1, width);
    return cost;
  }

  /** The ink in its working size, and each pixel's distance outside it (negative inside). */
  function workingShape(ink, width, height) {
    const box = boxOf(ink, width, height);
    if (box === null) return null;
    const [boxWidth, boxHeight] = [box[2] - box[0], box[3] - box[1]];
    const scale = WORKING_SIDE / Math.max(boxWidth, boxHeight);
    const inner = [boxWidth, boxHeight].map((side) => Math.max(1, Math.round(side * scale)));
    const margin = WORKING_SIDE / 4;
    const [newWidth, newHeight] = inner.map((side) => side + 2 * margin);
    const small = resample(ink, width, height, box, ...inner);
    const padded = new Float32Array(newWidth * newHeight);
    for (let y = 0; y < inner[1]; y++) {
      padded.set(small.subarray(y * inner[0], (y + 1) * inner[0]), (y + margin) * newWidth + margin);
    }
    const FAR = 1e9;
    const outside = squaredDistances(Float64Array.from(padded, (v) => (v >= 0.5 ? 0 : FAR)), newWidth, newHeight);
    const inside = squaredDistances(Float64Array.from(padded, (v) => (v >= 0.5 ? FAR : 0)), newWidth, newHeight);
    const distance = outside.map((value, at) => Math.sqrt(value) - Math.sqrt(inside[at]));
    return { distance, width: newWidth, height: newHeight };
  }

  /** The shape's ink with strokes wider by 2 x `delta` working pixels. */
  const grown = (shape, delta) =>
    Float32Array.from(shape.distance, (away) => Math.min(1, Math.max(0, delta + 0.5 - away)));

  /** Width of the strokes in pixels: twice the area over the length of its edge (total variation). */
  function thickness(ink, width, height) {
    const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : ink[y * width + x]);
    let [area, edge] = [0, 0];
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        area += at(x, y);
        edge += Math.hypot(at(x, y) - at(x - 1, y), at(x, y) - at(x, y - 1));
      }
    }
    return edge > 0 ? (2 * area) / edge : 0;
  }

  // ---- how the data sets were made: working ink -> frame of 0..1 ----

  /** MNIST: the longer side fills the box, and the centre of mass moves to that of the frame. */
  function framed(ink, width, height, facts) {
    const box = boxOf(ink, width, height);
    if (box === null) return null;
    const [frameHeight, frameWidth] = facts.frame;
    const side = Math.max(box[2] - box[0], box[3] - box[1]);
    const [newWidth, newHeight] = [box[2] - box[0], box[3] - box[1]].map((length) =>
      Math.max(1, Math.round((length / side) * facts.box)),
    );
    const small = resample(ink, width, height, box, newWidth, newHeight);
    let [mass, x, y] = [1e-9, 0, 0];
    small.forEach((value, at) => {
      mass += value;
      x += value * ((at % newWidth) + 0.5);
      y += value * (Math.floor(at / newWidth) + 0.5);
    });
    const middle = facts.center === "mass" ? [x / mass, y / mass] : [newWidth / 2, newHeight / 2];
    // whole pixels: the middle lies in the pixel below and to the right of the frame's centre
    const [left, top] = [
      [frameWidth, newWidth, middle[0]],
      [frameHeight, newHeight, middle[1]],
    ].map(([frame, size, at]) => Math.min(frame - size, Math.max(0, frame / 2 - Math.floor(at))));
    const frame = new Float32Array(frameWidth * frameHeight);
    for (let row = 0; row < newHeight; row++) {
      frame.set(small.subarray(row * newWidth, (row + 1) * newWidth), (row + top) * frameWidth + left);
    }
    return frame;
  }

  /** The digits: a bitmap of 32x32, with its full height and at most 20 wide, sheared upright. */
  function bitmap(ink, width, height, facts) {
    const box = boxOf(ink, width, height);
    if (box === null) return null;
    const [boxHeight, boxWidth] = facts.box;
    const side = facts.frame[0];
    const stretch = boxHeight / (box[3] - box[1]);
    const newWidth = Math.max(1, Math.min(boxWidth, Math.round((box[2] - box[0]) * stretch)));
    const small = resample(ink, width, height, box, newWidth, boxHeight);
    const bits = new Float32Array(side * side);
    const left = (side - newWidth) >> 1;
    small.forEach((value, at) => {
      if (value >= 0.5) bits[Math.floor(at / newWidth) * side + left + (at % newWidth)] = 1;
    });
    return sheared(bits, side);
  }

  /** Rows shifted so that the leftmost pixels near the top and the bottom are in one column. */
  function sheared(bits, side) {
    const first = (row) => bits.subarray(row * side, (row + 1) * side).indexOf(1);
    const [top, bottom] = [2, side - 3]; // the outermost rows are noisy
    if (first(top) < 0 || first(bottom) < 0) return bits;
    const slope = (first(top) - first(bottom)) / (bottom - top);
    const result = new Float32Array(bits.length);
    for (let row = 0; row < side; row++) {
      const shift = Math.round((row - side / 2) * slope);
      for (let column = 0; column < side; column++) {
        const from = column - shift;
        if (from >= 0 && from < side) result[row * side + column] = bits[row * side + from];
      }
    }
    return result;
  }

  const KINDS = {
    framed: {
      make: framed,
      measure: (frame, facts) => thickness(frame, facts.frame[1], facts.frame[0]),
      finish: (frame) => frame.map((value) => Math.round(255 * Math.min(1, Math.max(0, value)))),
    },
    bitmap: {
      make: bitmap,
      measure: (bits) => bits.reduce((sum, bit) => sum + bit, 0),
      finish: counted,
    },
  };

  /** Counts of the black pixels in each block, 0 to 16, as 0 to 255. */
  function counted(bits, facts) {
    const [side, block] = [facts.frame[0], facts.block];
    const small = side / block;
    const counts = new Float32Array(small * small);
    bits.forEach((bit, at) => {
      counts[Math.floor(at / side / block) * small + Math.floor((at % side) / block)] += bit;
    });
    return counts.map((count) => Math.round((count * 255) / (block * block)));
  }

  /** The strokes made wider or thinner until their measure is within `facts.strokes`. */
  function matched(shape, facts, kind) {
    const make = (delta) => kind.make(grown(shape, delta), shape.width, shape.height, facts);
    let [frame, delta] = [make(0), 0];
    if (facts.strokes === null || frame === null) return { frame, words: [] };
    const [least, most] = facts.strokes;
    const measured = kind.measure(frame, facts);
    const wanted = Math.min(most, Math.max(least, measured));
    if (wanted === measured) return { frame, words: [] };
    let [low, high] = wanted > measured ? [0, WORKING_SIDE / 5] : [-WORKING_SIDE / 5, 0];
    for (let attempt = 0; attempt < TRIES; attempt++) {
      delta = (low + high) / 2;
      const other = make(delta);
      const found = other === null ? 0 : kind.measure(other, facts);
      if (other !== null) frame = other;
      if (found < wanted) low = delta;
      else high = delta;
    }
    return { frame, words: [wanted > measured ? "strokes thickened" : "strokes thinned"] };
  }

  // ---- what the run did to its data ----

  /** An image of the data set in the middle of the run's canvas, if it has one. */
  function laid(pixels, facts) {
    const [channels, height, width] = facts.base;
    const side = facts.canvas;
    if (side === null) return pixels;
    const [top, left] = [Math.floor((side - height) / 2), Math.floor((side - width) / 2)];
    const result = new Uint8Array(channels * side * side);
    for (let row = 0; row < channels * height; row++) {
      const [c, y] = [Math.floor(row / height), row % height];
      const start = (c * side + top + y) * side + left;
      result.set(pixels.subarray(row * width, (row + 1) * width), start);
    }
    return result;
  }

  /** Pixels in the run's order: place i takes pixel order[i] of its channel. */
  function permuted(pixels, { order }) {
    if (order === null) return pixels;
    return pixels.map((_, at) => pixels[at - (at % order.length) + order[at % order.length]]);
  }

  /** The inverse: a picture for the eye from the network's input. */
  function unpermuted(pixels, { order }) {
    if (order === null) return pixels;
    const result = new Uint8Array(pixels.length);
    pixels.forEach((value, at) => {
      result[at - (at % order.length) + order[at % order.length]] = value;
    });
    return result;
  }

  // ---- from start to end ----

  /** Planes (C x H x W) of the base image: as in the data set, before the run changed it. */
  function based(planes, width, height, facts) {
    const [channels, newHeight, newWidth] = facts.base;
    const fitted = planes.map((plane) => covered(plane, width, height, newWidth, newHeight));
    const count = newWidth * newHeight;
    const result = new Uint8Array(channels * count);
    for (let c = 0; c < channels; c++) result.set(fitted[fitted.length === 1 ? 0 : c], c * count);
    return result;
  }

  /**
   * The network's input for a picture, before sliders: {pixels, words, isSwapped}; null if empty.
   *
   * - `facts`: those of living/fitting.py.
   * - `swap`: whether to swap dark and light; null: if the data need it.
   * - `isFitted`: false if the picture is only scaled down, as in most demos.
   */
  function made(picture, facts, swap, isFitted) {
    const { width, height } = picture;
    const kind = KINDS[facts.kind];
    if (kind === undefined) return plainly(picture, facts, swap);
    const [grey] = planesOf(picture, 1);
    const isSwapped = swap ?? isDarkOnLight(grey, width, height);
    const words = isSwapped ? ["dark and light swapped"] : [];
    if (!isFitted) {
      const turned = isSwapped ? grey.map((value) => 255 - value) : grey;
      const pixels = based([turned], width, height, facts);
      return { pixels, isSwapped, words: ["only scaled down", ...words] };
    }
    const ink = inkOf(grey, width, height, isSwapped);
    if (ink === null) return null;
    if (clean(ink, width, height)) words.push("specks left out");
    const shape = workingShape(ink, width, height);
    if (shape === null) return null;
    const found = matched(shape, facts, kind);
    if (found.frame === null) return null;
    const values = kind.finish(found.frame, facts);
    const side = Math.sqrt(values.length);
    const pixels = based([values], side, side, facts);
    return { pixels, isSwapped, words: [facts.words, ...found.words, ...words] };
  }

  /** A picture as `convscape predict` reads it: cropped to the aspect ratio, and scaled. */
  function plainly(picture, facts, swap) {
    const channels = facts.base[0] === 1 ? 1 : 3;
    const planes = planesOf(picture, channels);
    const pixels = based(planes, picture.width, picture.height, facts);
    const brightness = pixels.reduce((sum, value) => sum + value, 0) / pixels.length / 255;
    const usual = facts.brightness;
    const looksInverted =
      Math.abs(1 - brightness - usual) + 0.2 < Math.abs(brightness - usual);
    const isSwapped = swap ?? looksInverted;
    const words = [facts.words, ...(isSwapped ? ["dark and light swapped"] : [])];
    return { pixels: isSwapped ? pixels.map((value) => 255 - value) : pixels, isSwapped, words };
  }

  /** The base image on the run's canvas, in an image's order: `permuted` gives the network's. */
  function given(picture, facts, swap = null, isFitted = true) {
    const found = made(picture, facts, swap, isFitted);
    return found && { ...found, pixels: laid(found.pixels, facts) };
  }

  convscape.fit = { given, permuted, unpermuted, thickness };
})();
