// Only with a server: the living network of a run.
"use strict";
(() => {
  const { h } = convscape.dom;
  function network(document, state, url) {
    const choices = document.sections.flatMap((section) => section.runs.folder.map((folder, i) => ({ folder, words: section.runs.run[i], is: section.runs.checkpoint[i] === 1 && section.runs.status[i] === "ok", acc: section.metric ? section.runs.numbers[section.metric.name]?.[i] : null, sign: section.metric?.direction === "min" ? -1 : 1 })))
      .filter((c) => c.is).sort((a, b) => ((b.acc ?? -Infinity) - (a.acc ?? -Infinity)) * a.sign || 0);
    if (!choices.length) return h("p", { class: "empty" }, "No run here has finished with a checkpoint.");
    const chosen = choices.find((c) => c.folder === state.network) ?? choices[0];
    const select = h("select", { "aria-label": "run", onchange: () => { state.network = select.value; state.redraw(); } }, choices.slice(0, 500).map((c) => h("option", { value: c.folder }, c.folder)));
    select.value = chosen.folder;
    const said = h("span", { class: "soft", role: "status" }, "Reading the network…"); // takes a few seconds the first time
    return h("div", { class: "network" }, h("div", { class: "tools" }, select, said), h("iframe", { onload: () => (said.textContent = "best run first; draw, or click on a picture"), src: url(`network?run=${encodeURIComponent(chosen.folder)}`), title: `the network of ${chosen.words}` }));
  }
  convscape.network = { network };
})();
