"use strict";
/* What the page shows, in one place: convscape.state.get(), .set({...}), .listen(f), .flush().

pixels (Uint8Array of C*H*W, or null for no input), label (of a test image, or null), name,
selection ({layer, map, row, column} or null), weights (how often they were changed), score (see
score.js); and what is computed from the pixels: activations,
logits, probabilities, milliseconds. Listeners are called with the state and a Set of changed keys,
once per frame, however often it was set. */
(() => {
  const { engine } = convscape;
  const listeners = [], changed = new Set();
  const FOLLOWS = ["activations", "logits", "probabilities", "milliseconds"];
  const state = { pixels: null, label: null, name: "", selection: null };
  for (const key of FOLLOWS) state[key] = null;
  let waiting = false;

  function compute() {
    for (const key of FOLLOWS) { state[key] = null; changed.add(key); }
    if (state.pixels === null) return;
    const start = performance.now();
    state.activations = convscape.network.run(state.pixels);
    state.milliseconds = performance.now() - start;
    state.logits = Array.from(state.activations[convscape.network.last].values);
    state.probabilities = engine.softmax(state.logits);
  }

  /** Compute and tell the listeners now, not with the next frame. */
  function flush() {
    waiting = false;
    if (!changed.size) return;
    if (changed.has("pixels")) compute();
    const keys = new Set(changed);
    changed.clear();
    for (const listener of listeners) listener(state, keys);
  }

  function set(values) {
    for (const [key, value] of Object.entries(values)) {
      state[key] = value;
      changed.add(key);
    }
    if (waiting || !changed.size) return;
    waiting = true;
    requestAnimationFrame(flush);
  }

  convscape.state = { get: () => state, set, listen: (listener) => listeners.push(listener), flush };

  /** Compute again after the network itself was changed. */
  convscape.state.recompute = () => set({ pixels: state.pixels });

  /** Logits, in the order of convscape.classes, for pixels (C*H*W, 0 to 255). */
  convscape.predict = (pixels) =>
    Array.from(convscape.network.run(pixels)[convscape.network.last].values);
})();
