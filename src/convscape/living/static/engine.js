"use strict";
/* The arithmetic of every kind of layer: convscape.engine.build(document).run(pixels).

Plain JavaScript on typed arrays. A network of this project has a few million multiply-accumulates,
which take milliseconds here. WebGL rounds differently on every machine and is missing on some,
WebAssembly needs a policy that lets bytes become code, and a library adds a megabyte to each page
without knowing SAME padding at a stride, polyphase pooling or torch's average. A convolution
gathers one window after the other and multiplies it by four kernels at a time, which keeps the
window in the nearest cache and four sums in registers. Sums are float64, stored values float32, so
the result is at least as exact as torch's.

All values are Float32Array of C*H*W; a vector is (features, 1, 1). Layers know "kind", "shape",
"reads" (the input's shape), "tensors" and whatever their kind needs; see living/document.py.
*/
(() => {
  const convscape = (globalThis.convscape = globalThis.convscape || {});

  // ---- numbers from text ----

  function bytes(base64) {
    const text = atob(base64), found = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
    return found;
  }

  /** A tensor of the document, as Float32Array. */
  function unpack(tensor) {
    const view = new DataView(bytes(tensor.data).buffer);
    const size = tensor.dtype === "float16" ? 2 : 4;
    const values = new Float32Array(view.byteLength / size);
    for (let i = 0; i < values.length; i++)
      values[i] = size === 2 ? half(view.getUint16(2 * i, true)) : view.getFloat32(4 * i, true);
    return values;
  }

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  // ---- windows ----

  /** Maps with padding around them, from the opposite edge or with `fill`; and their size. */
  function padded(values, [channels, height, width], [top, bottom, left, right], circular, fill) {
    const rows = height + top + bottom, columns = width + left + right;
    if (rows === height && columns === width) return { values, rows, columns };
    const found = new Float32Array(channels * rows * columns).fill(fill);
    for (let c = 0; c < channels; c++)
      for (let row = 0; row < rows; row++) {
        let from = row - top;
        if (circular) from = (from + height) % height;
        else if (from < 0 || from >= height) continue;
        const start = (c * height + from) * width, place = (c * rows + row) * columns;
        found.set(values.subarray(start, start + width), place + left);
        if (!circular) continue;
        for (let i = 0; i < left; i++) found[place + i] = values[start + width - left + i];
        for (let i = 0; i < right; i++) found[place + left + width + i] = values[start + i];
      }
    return { values: found, rows, columns };
  }

  /** The places that the window of each output reads along an axis, without padding. */
  function places(size, outputs, kernel, stride, before, after, circular) {
    return Array.from({ length: outputs }, (_, output) => {
      const found = [];
      for (let i = 0; i < kernel; i++) {
        const place = output * stride - before + i;
        if (circular && place >= -before && place < size + after)
          found.push((place + size) % size);
        else if (!circular && place >= 0 && place < size) found.push(place);
      }
      return found;
    });
  }

  /** Scalar products of `input` with `count` rows of weights, `step` apart in `output`. */
  function products(input, size, weights, first, count, bias, output, place, step) {
    let row = 0;
    for (; row + 4 <= count; row += 4) {
      const a = (first + row) * size, b = a + size, c = b + size, d = c + size;
      let sumA = 0, sumB = 0, sumC = 0, sumD = 0;
      for (let i = 0; i < size; i++) {
        const value = input[i];
        sumA += value * weights[a + i];
        sumB += value * weights[b + i];
        sumC += value * weights[c + i];
        sumD += value * weights[d + i];
      }
      const unit = first + row;
      output[place + unit * step] = sumA + (bias ? bias[unit] : 0);
      output[place + (unit + 1) * step] = sumB + (bias ? bias[unit + 1] : 0);
      output[place + (unit + 2) * step] = sumC + (bias ? bias[unit + 2] : 0);
      output[place + (unit + 3) * step] = sumD + (bias ? bias[unit + 3] : 0);
    }
    for (; row < count; row++) {
      const unit = first + row, start = unit * size;
      let sum = bias ? bias[unit] : 0;
      for (let i = 0; i < size; i++) sum += input[i] * weights[start + i];
      output[place + unit * step] = sum;
    }
  }

  // ---- kinds of layers: (layer, values) -> values ----

  function conv(layer, inputs) {
    const [outputs, height, width] = layer.shape, { weight, bias } = layer.tensors;
    const [tall, wide] = layer.kernel_size, [down, along] = layer.stride;
    const [spreadY, spreadX] = layer.dilation;
    const { values, rows, columns } = padded(inputs, layer.reads, layer.pads, layer.circular, 0);
    const perGroup = layer.reads[0] / layer.groups, kernels = outputs / layer.groups;
    const size = perGroup * tall * wide, patch = new Float32Array(size);
    const found = new Float32Array(outputs * height * width);
    for (let group = 0; group < layer.groups; group++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          let at = 0;
          for (let c = group * perGroup; c < (group + 1) * perGroup; c++)
            for (let i = 0; i < tall; i++) {
              let from = (c * rows + y * down + i * spreadY) * columns + x * along;
              for (let j = 0; j < wide; j++, from += spreadX) patch[at++] = values[from];
            }
          products(
            patch, size, weight, group * kernels, kernels, bias, found, y * width + x,
            height * width,
          );
        }
    return found;
  }

  function dense(layer, values) {
    const { weight, bias } = layer.tensors, units = layer.shape[0];
    const found = new Float32Array(units);
    products(values, values.length, weight, 0, units, bias, found, 0, 1);
    return found;
  }

  function pool(layer, values) {
    if (layer.pool === "blur") return blurred(layer, values);
    if (layer.pool === "aps") return polyphase(layer, values).values;
    const [channels, height, width] = layer.shape, [, rows, columns] = layer.reads;
    const [tall, wide] = layer.kernel_size, [down, along] = layer.stride;
    const [top, bottom, left, right] = layer.pads;
    const ys = places(rows, height, tall, down, top, bottom, layer.circular);
    const xs = places(columns, width, wide, along, left, right, layer.circular);
    const found = new Float32Array(channels * height * width);
    const reduce = layer.pool === "max" ? largest : mean;
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          found[at++] = reduce(values, c * rows * columns, columns, ys[y], xs[x]);
    return found;
  }

  function largest(values, start, columns, ys, xs) {
    let most = -Infinity;
    for (let i = 0; i < ys.length; i++)
      for (let j = 0; j < xs.length; j++) {
        const value = values[start + ys[i] * columns + xs[j]];
        if (value > most || value !== value) most = value; // NaN wins, as in torch
      }
    return most;
  }

  function mean(values, start, columns, ys, xs) {
    let sum = 0;
    for (let i = 0; i < ys.length; i++)
      for (let j = 0; j < xs.length; j++) sum += values[start + ys[i] * columns + xs[j]];
    return sum / (ys.length * xs.length);
  }

  /** The maximum under the window at every position of the padded maps; padding counts as 0. */
  function maxima(layer, inputs) {
    const channels = layer.reads[0], [tall, wide] = layer.kernel_size;
    const { values, rows, columns } = padded(inputs, layer.reads, layer.pads, layer.circular, 0);
    const height = rows - tall + 1, width = columns - wide + 1;
    const ys = places(rows, height, tall, 1, 0, 0, false);
    const xs = places(columns, width, wide, 1, 0, 0, false);
    const found = new Float32Array(channels * height * width);
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          found[at++] = largest(values, c * rows * columns, columns, ys[y], xs[x]);
    return { values: found, height, width };
  }

  /** Zhang 2019: the maxima, blurred by 1 2 1 along both axes and read at the stride. */
  function blurred(layer, inputs) {
    const { values, height, width } = maxima(layer, inputs), [down, along] = layer.stride;
    const [channels, rows, columns] = layer.shape, weights = [0.25, 0.5, 0.25];
    const found = new Float32Array(channels * rows * columns);
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++) {
          let sum = 0;
          for (let i = 0; i < 3; i++)
            for (let j = 0; j < 3; j++)
              sum += weights[i] * weights[j] *
                values[(c * height + y * down + i) * width + x * along + j];
          found[at++] = sum;
        }
    return found;
  }

  /** Chaman and Dokmanic 2021: of the stride's grids over the maxima, the one with the largest norm.

  Gives that grid, [row, column] of its first unit, too. */
  function polyphase(layer, inputs) {
    const { values, height, width } = maxima(layer, inputs), [down, along] = layer.stride;
    const [channels, rows, columns] = layer.shape;
    const place = (c, y, x, [top, left]) =>
      (c * height + y * down + top) * width + x * along + left;
    let grid = [0, 0], most = -Infinity;
    for (let top = 0; top < down; top++)
      for (let left = 0; left < along; left++) {
        let norm = 0;
        for (let c = 0; c < channels; c++)
          for (let y = 0; y < rows; y++)
            for (let x = 0; x < columns; x++) norm += values[place(c, y, x, [top, left])] ** 2;
        if (norm > most || (norm !== norm && most === most)) [grid, most] = [[top, left], norm];
      }
    const found = new Float32Array(channels * rows * columns);
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++) found[at++] = values[place(c, y, x, grid)];
    return { values: found, grid };
  }

  function globalPool(layer, values) {
    const [channels, height, width] = layer.reads, found = new Float32Array(channels);
    const ys = Array.from({ length: height }, (_, i) => i);
    const xs = Array.from({ length: width }, (_, i) => i);
    const reduce = layer.pool === "max" ? largest : mean;
    for (let c = 0; c < channels; c++)
      found[c] = reduce(values, c * height * width, width, ys, xs);
    return found;
  }

  function batchNorm(layer, values) {
    const { weight, bias, mean, variance } = layer.tensors, [channels, height, width] = layer.shape;
    const found = new Float32Array(values.length), size = height * width;
    for (let c = 0, at = 0; c < channels; c++) {
      const scale = weight[c] / Math.sqrt(variance[c] + layer.eps);
      const shift = bias[c] - mean[c] * scale;
      for (let i = 0; i < size; i++, at++) found[at] = values[at] * scale + shift;
    }
    return found;
  }

  function residual(layer, values, terms) {
    const found = Float32Array.from(terms[0]);
    for (const term of terms.slice(1))
      for (let i = 0; i < found.length; i++) found[i] += term[i];
    return found;
  }

  function subsample(layer, values) {
    const [, height, width] = layer.shape, [channels, rows, columns] = layer.reads;
    const [down, along] = layer.stride;
    const found = new Float32Array(layer.shape[0] * height * width); // the additional channels are zeros
    for (let c = 0, at = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          found[at++] = values[(c * rows + y * down) * columns + x * along];
    return found;
  }

  // ---- activations ----

  /** The error function: x exp(-x^2) times a series of positive terms, without cancellation. */
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    let term = 1, sum = 1;
    for (let n = 1; term > 1e-17 * sum; n++) sum += term *= (2 * x * x) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * x * Math.exp(-x * x) * sum;
  }

  const SELU = { alpha: 1.6732632423543772, scale: 1.0507009873554805 };
  const FUNCTIONS = {
    relu: (x) => (x < 0 ? 0 : x),
    leaky_relu: (x) => (x < 0 ? 0.01 * x : x),
    elu: (x) => (x < 0 ? Math.expm1(x) : x),
    selu: (x) => SELU.scale * (x < 0 ? SELU.alpha * Math.expm1(x) : x),
    gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
    silu: (x) => x / (1 + Math.exp(-x)),
    tanh: Math.tanh,
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  };

  function activation(layer, values) {
    const of = FUNCTIONS[layer.activation], found = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) found[i] = of(values[i]);
    return found;
  }

  /** Zeros in place of maps that are switched off. */
  function silenced({ off, shape: [, height, width] }, values) {
    const found = Float32Array.from(values), size = height * width;
    for (const map of off) found.fill(0, map * size, (map + 1) * size);
    return found;
  }

  const same = (layer, values) => values;
  const KINDS = {
    conv, dense, pool, activation, residual, subsample,
    global_pool: globalPool, batch_norm: batchNorm, flatten: same, dropout: same,
  };

  // ---- networks ----

  /** All layers, each before those in it, with numbers decoded from text. */
  function flat(layers) {
    return layers.flatMap((layer) => {
      const tensors = {};
      for (const name of Object.keys(layer.tensors)) tensors[name] = unpack(layer.tensors[name]);
      const { branches, ...facts } = layer;
      return [{ ...facts, tensors }, ...branches.flatMap(flat)];
    });
  }

  /** The network of a document: `input` (C, H, W), `layers`, normalize(pixels), run(pixels). */
  function build(document) {
    const [channels, height, width] = document.input, size = height * width;
    // JSON has no NaN: it is null there
    const [scale, shift] = ["scale", "shift"].map((key) => document.normalize[key].map((v) => v ?? NaN));
    const layers = flat(document.layers);
    // the layers in a layer come after it in `layers`, but are computed before it
    const order = [];
    const add = (rows) => rows.forEach((row) => { row.branches.forEach(add); order.push(row.index); });
    add(document.layers);

    function normalize(pixels) {
      if (pixels.length !== channels * size)
        throw new Error(`${pixels.length} pixels; allowed: ${channels} x ${height} x ${width}, one channel after the other`);
      const values = new Float32Array(pixels.length);
      for (let i = 0; i < pixels.length; i++) {
        const c = Math.floor(i / size);
        values[i] = Math.fround(Math.fround(scale[c]) * pixels[i]) + shift[c];
      }
      return values;
    }

    /** The output of each layer for pixels (C*H*W, 0 to 255): [{layer, values, shape}]. */
    function run(pixels) {
      const input = normalize(pixels), found = new Array(layers.length);
      const valuesOf = (index) => (index < 0 ? input : found[index].values);
      for (const index of order) {
        const layer = layers[index], sources = layer.from.map(valuesOf);
        const values = KINDS[layer.kind](layer, sources[0], sources);
        found[index] = { layer, values: layer.off?.size ? silenced(layer, values) : values, shape: layer.shape };
      }
      return found;
    }

    return { input: document.input, layers, normalize, run, last: order[order.length - 1] };
  }

  function softmax(logits) {
    const most = Math.max(...logits), parts = Array.from(logits, (v) => Math.exp(v - most));
    const sum = parts.reduce((a, b) => a + b, 0);
    return parts.map((v) => v / sum);
  }

  /** The output of one layer, whose tensors are already decoded, for values. */
  const compute = (layer, values) => KINDS[layer.kind](layer, values, [values]);

  convscape.engine = { build, compute, unpack, bytes, padded, polyphase, maxima, softmax, functions: FUNCTIONS };
})();
