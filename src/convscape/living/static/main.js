"use strict";
/* Reads the document, builds the network, and starts the parts of the page. */
(() => {
  const element = (id) => document.getElementById(id);

  function chosenImage(found) {
    if (found.chosen !== null)
      return { ...found.chosen, pixels: convscape.engine.bytes(found.chosen.pixels) };
    const [first] = convscape.inputs.testImages(found);
    return first && { pixels: first.pixels, label: first.label, name: `test image ${first.place}` };
  }

  function start() {
    const found = JSON.parse(element("document").textContent);
    convscape.document = found;
    convscape.classes = found.classes;
    convscape.network = convscape.engine.build(found);
    element("title").textContent = found.title;
    element("words").textContent = `${found.words}; ${found.data}`;
    convscape.weights.start();
    convscape.score.start(found);
    for (const part of ["inputs", "view", "detail", "answer", "timeline", "beside", "changes"])
      convscape[part].start(element(part === "view" ? "network" : part), found);
    const image = chosenImage(found);
    if (image) convscape.state.set(image);
    convscape.state.flush();
  }

  try {
    start();
  } catch (error) {
    element("failure").hidden = false;
    element("failure").textContent = `This page is damaged: ${error.message}`;
    throw error;
  }
})();
