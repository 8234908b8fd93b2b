"use strict";
/* How unlike the training images an input is, and how sure the answer is, in words: convscape.unlike. */
(() => {
  const { engine } = convscape;
  let measure = null; // with its tensors decoded

  function unpacked(facts) {
    if (measure === null) {
      const [means, directions] = [facts.means, facts.directions].map(engine.unpack);
      measure = { ...facts, means, directions, size: facts.means.shape[1] };
    }
    return measure;
  }

  /** What the last dense layer reads. */
  function hidden(facts, { pixels, activations }) {
    if (facts.layer >= 0) return activations[facts.layer].values;
    const { input, normalize } = convscape.document;
    const count = input[1] * input[2];
    return Float32Array.from(pixels, (value, at) => {
      const c = Math.floor(at / count);
      return value * normalize.scale[c] + normalize.shift[c];
    });
  }

  function ofLengthOne(values) {
    const length = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)) || 1;
    return values.map((value) => value / length);
  }

  /** Distance of a state's input to the nearest class; null without a measure. */
  function distance(state) {
    const facts = convscape.document.unlike.measure;
    if (!facts || state.activations === null) return null;
    const { means, directions, deviations, rest, size } = unpacked(facts);
    const values = ofLengthOne(hidden(facts, state));
    let nearest = Infinity;
    for (let start = 0; start < means.length; start += size) {
      let [length, kept, squared] = [0, 0, 0];
      for (let i = 0; i < size; i++) length += (values[i] - means[start + i]) ** 2;
      for (let k = 0; k < deviations.length; k++) {
        let along = 0;
        for (let i = 0; i < size; i++) along += (values[i] - means[start + i]) * directions[k * size + i];
        kept += along * along;
        squared += (along / deviations[k]) ** 2;
      }
      nearest = Math.min(nearest, squared + Math.max(0, length - kept) / rest);
    }
    return Math.sqrt(nearest / size);
  }

  /** Two sentences: {isUnlike, unlike, sure}; each is empty if there is nothing to say. */
  function words(state) {
    const { measure: facts, sure, levels } = convscape.document.unlike;
    const other = convscape.weights.unmeasured();
    if (other !== null)
      return { isUnlike: false, unlike: "", sure: `${other}: it was not measured how often such an answer is right.` };
    const found = distance(state);
    const isUnlike = found !== null && found > facts.threshold;
    let unlike = "";
    if (isUnlike) {
      const rate = Math.round(1 / facts.false_alarms);
      unlike =
        `Unlike anything it was trained on: its distance to the nearest class is ${(found / facts.threshold).toFixed(2)} times ` +
        `what only 1 in ${rate} validation images exceeds. The answer means little.`;
    }
    if (sure === undefined) return { isUnlike, unlike, sure: "" }; // a page without data
    if (sure === null) return { isUnlike, unlike, sure: "It was not trained to give probabilities, so it cannot say how sure it is." };
    const best = Math.max(...state.probabilities);
    const level = levels.filter((least) => best >= least).length;
    const [count, right] = sure[level];
    const percent = (share) => `${Number((100 * share).toFixed(2))} %`;
    const [low, high] = [levels[level - 1] ?? 0, levels[level] ?? 1];
    const span = `${percent(low)} to ${percent(high)}`;
    const spoken = level >= 5 ? "Very sure" : level >= 3 ? "Sure" : level >= 1 ? "Not sure" : "Very unsure";
    const proof = count ? `${right} of the ${count} validation images with ${span} were right` : `no validation image got ${span}`;
    return { isUnlike, unlike, sure: `${spoken}: ${proof}.` };
  }

  convscape.unlike = { distance, words };
})();
