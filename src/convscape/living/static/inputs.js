"use strict";
/* What the network is given: convscape.inputs.start(root, document). */
(() => {
  const { engine } = convscape;

  /** The page's test images: [{pixels, label, predicted, place}]. */
  function testImages({ input, images }) {
    const size = input[0] * input[1] * input[2], all = engine.bytes(images.pixels);
    return images.labels.map((label, i) => ({
      pixels: all.subarray(i * size, (i + 1) * size),
      label, predicted: images.predicted[i], place: images.places[i],
    }));
  }

  function start(root, document) {
    for (const { pixels, label, place } of testImages(document)) {
      const button = globalThis.document.createElement("button");
      button.textContent = convscape.classes[label];
      button.addEventListener("click", () =>
        convscape.state.set({ pixels, label, name: `test image ${place}` }));
      root.append(button);
    }
  }

  convscape.inputs = { start, testImages };
})();
