"use strict";
/* The weights that the network computes with: convscape.weights.

   A layer's weights, from the run or one of its epochs, are shuffled, then noise is added; values
   that were typed in override both, and a map that is off gives only zeros. The tensors of
   `convscape.network.layers` are replaced and never written into. */
(() => {
  const { change, state } = convscape;
  const changes = new Map(); // of a layer's index: {shuffle, noise, edits, off}
  let given = []; // unchanged tensors of each layer
  let shuffles = 0; // so far; each one differs
  let others = null; // whose weights these are, in words, if not the run's own

  const isWeighted = (layer) => layer.kind === "conv" || layer.kind === "dense";

  function start() {
    given = convscape.network.layers.map((layer) => layer.tensors);
  }

  /** The changes to a layer, which is computed again with them. */
  function of(index) {
    if (!changes.has(index))
      changes.set(index, { shuffle: 0, noise: 0, edits: { weight: new Map(), bias: new Map() }, off: new Set() });
    return changes.get(index);
  }

  const isNone = ({ shuffle, noise, edits, off }) =>
    !shuffle && !noise && !edits.weight.size && !edits.bias.size && !off.size;

  function rebuild(index) {
    const layer = convscape.network.layers[index], made = changes.get(index);
    layer.tensors = given[index];
    layer.off = made?.off;
    if (!made) return;
    if (isNone(made)) return void changes.delete(index);
    let { weight, bias } = given[index];
    if (made.shuffle) weight = shuffled(weight, made.shuffle);
    if (made.noise) weight = disturbed(weight, made.noise, index);
    weight = edited(weight, made.edits.weight);
    bias = edited(bias, made.edits.bias);
    layer.tensors = { ...given[index], ...(weight && { weight }), ...(bias && { bias }) };
  }

  function edited(values, edits) {
    if (!edits.size) return values;
    const found = Float32Array.from(values);
    for (const [at, value] of edits) found[at] = value;
    return found;
  }

  /** Fisher and Yates. */
  function shuffled(values, seed) {
    const found = Float32Array.from(values), uniform = change.uniforms(seed);
    for (let i = found.length - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  }

  /** With normally distributed noise, `share` of the weights' own standard deviation. */
  function disturbed(values, share, seed) {
    const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
    const normal = change.normals(seed + 1);
    return values.map((value) => value + share * deviation * normal());
  }

  function follow(indices) {
    for (const index of indices) rebuild(index);
    state.set({ weights: (state.get().weights ?? 0) + 1 });
    state.recompute();
  }

  const edit = (index, name, values) => {
    const edits = of(index).edits[name];
    for (const [at, value] of values) edits.set(at, value);
    follow([index]);
  };
  const shuffle = (index) => {
    of(index).shuffle = ++shuffles;
    follow([index]);
  };
  const disturb = (indices, share) => {
    for (const index of indices) of(index).noise = share;
    follow(indices);
  };
  const switchMap = (index, map, isOff) => {
    const { off } = of(index);
    isOff ? off.add(map) : off.delete(map);
    follow([index]);
  };

  function reset() {
    const indices = [...changes.keys()];
    changes.clear();
    follow(indices);
  }

  /** Other weights for every layer, as [{name: Float32Array}]; changes now apply to these.

  `words` say whose they are; null for the run's own. */
  function give(tensors, words) {
    [given, others] = [tensors, words];
    follow(given.keys());
  }

  /** Why what the run measured does not apply to this network; null if it does. */
  const unmeasured = () => (changes.size ? "The network was changed" : others);

  convscape.weights = {
    start, give, unmeasured, edit, shuffle, disturb, switchMap, reset, isWeighted,
    noise: (index) => changes.get(index)?.noise ?? 0,
    isOff: (index, map) => changes.get(index)?.off.has(map) ?? false,
    changed: () => [...changes.keys()].sort((a, b) => a - b),
  };
})();
