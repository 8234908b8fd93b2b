"use strict";
/* How many of the page's test images the network gets right, counted again when its weights change:
   state.score ({right, count, predicted}), null during the count. */
(() => {
  const { state } = convscape;
  const SLICE_MS = 12; // out of each frame's 16, so that the page keeps moving

  function start(found) {
    const images = convscape.inputs.testImages(found);
    let counting = 0;

    function count() {
      const mine = ++counting, predicted = [];
      function slice() {
        if (mine !== counting) return;
        const end = performance.now() + SLICE_MS;
        while (predicted.length < images.length && performance.now() < end) {
          const logits = convscape.predict(images[predicted.length].pixels);
          predicted.push(logits.indexOf(Math.max(...logits)));
        }
        if (predicted.length < images.length) return void setTimeout(slice);
        const right = images.filter(({ label }, i) => label === predicted[i]).length;
        state.set({ score: { right, count: images.length, predicted } });
      }
      setTimeout(slice);
    }

    const predicted = images.map((image) => image.predicted);
    const right = images.filter((image) => image.label === image.predicted).length;
    state.set({ score: { right, count: images.length, predicted } });
    state.listen((_, changed) => {
      if (!changed.has("weights") || !images.length) return;
      state.set({ score: null });
      count();
    });
  }

  convscape.score = { start };
})();
