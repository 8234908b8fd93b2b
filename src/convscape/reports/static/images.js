// Only with a server: the images that runs get wrong, by class, and what they take them for.
"use strict";
(() => {
  const { h, counted, tipped } = convscape.dom;
  const percent = (p) => `${Math.round(100 * p)} %`;
  const name = (found, label) => found.classes?.[label] ?? String(label);

  function picture(found, index) {
    const canvas = h("canvas", { class: "image" });
    if (!found.bytes) return h("div", { class: "image none" }, `no. ${found.wrong[index].place}`);
    const [channels, height, width] = found.shape, size = channels * height * width, at = index * size;
    [canvas.width, canvas.height] = [width, height];
    const pixels = new ImageData(width, height);
    for (let i = 0; i < height * width; i++)
      for (let c = 0; c < 4; c++) pixels.data[4 * i + c] = c === 3 ? 255 : found.bytes[at + (channels === 3 ? c * height * width : 0) + i];
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }
  function tile(found, index) {
    const one = found.wrong[index], is = name(found, one.label), others = one.said.filter((s) => s.label !== one.label);
    const wrong = others.reduce((sum, s) => sum + s.runs, 0), first = others[0];
    const words = found.runs === 1 ? `${percent(first.p)} sure` : `${wrong} of ${found.runs} runs`;
    const label = `${is} taken for ${name(found, first.label)}: ${words}`;
    return tipped(h("figure", { class: "wrong", "aria-label": label }, picture(found, index), h("figcaption", {}, h("b", {}, `${is} → ${name(found, first.label)}`), h("span", {}, words), h("span", { class: "soft" }, `p(${is}) ${percent(one.p)}`))),
      () => [`image ${one.place} of ${found.split}, class ${is}, mean probability ${percent(one.p)}`, ...one.said.map((s) => `${name(found, s.label)}: ${counted(s.runs, "run")}, on average ${percent(s.p)} sure`)]);
  }
  // For each image, how many runs are wrong; it is disputed if about half of them are.
  const disputed = (found, one) => Math.abs(1 - 2 * (one.said.find((s) => s.label === one.label)?.runs ?? 0) / found.runs);

  function grid(found, state) {
    const classes = [...new Set(found.wrong.map((one) => one.label))].sort((a, b) => a - b);
    const order = found.wrong.map((_, i) => i);
    if (state.order === "disagreements") order.sort((a, b) => disputed(found, found.wrong[a]) - disputed(found, found.wrong[b]));
    return classes.filter((label) => state.label === "" || state.label === String(label)).map((label) => {
      const mine = order.filter((i) => found.wrong[i].label === label && (state.order !== "disagreements" || disputed(found, found.wrong[i]) < 1));
      return mine.length > 0 && h("section", {}, h("h3", {}, name(found, label), h("span", { class: "soft" }, ` ${counted(mine.length, "image")}`)), h("div", { class: "tiles" }, mine.map((i) => tile(found, i))));
    });
  }
  const choice = (label, value, options, change) => {
    const select = h("select", { "aria-label": label, onchange: () => change(select.value) }, options.map(([v, words]) => h("option", { value: v }, words)));
    select.value = value;
    return select;
  };

  function images(document, all, url) {
    const state = (all.images ??= { split: "val", run: "", label: "", order: "mistakes" });
    const place = h("div", {}, h("p", { class: "empty" }, "Reading the answers of the runs…")), tools = h("div", { class: "tools" });
    const redraw = () => show(state.found);
    function show(found) {
      state.found = found;
      const runs = document.sections.flatMap((s) => s.runs.folder.map((folder, i) => [folder, s.runs.run[i], s.runs.status[i]])).filter(([, , status]) => status === "ok").slice(0, 500);
      tools.replaceChildren(
        choice("split", state.split, [["val", "validation images"], ["test", "test images"]], (v) => { state.split = v; ask(); }),
        choice("runs", state.run, [["", "all runs"], ...runs], (v) => { state.run = v; ask(); }),
        choice("class", state.label, [["", "all classes"], ...[...new Set(found.wrong.map((o) => o.label))].sort((a, b) => a - b).map((l) => [String(l), name(found, l)])], (v) => { state.label = v; redraw(); }),
        found.runs > 1 ? choice("order", state.order, [["mistakes", "what most get wrong"], ["disagreements", "where they disagree"]], (v) => { state.order = v; redraw(); }) : "",
        h("span", { class: "soft", role: "status" }, found.runs ? `${counted(found.runs, "run")} on ${counted(found.images, "image")}` : ""));
      const notes = [found.missing, found.left_out > 0 && `${counted(found.left_out, "run")} that answered on other images, kept no answers or came late in a long list are left out`].filter(Boolean);
      const none = found.runs ? "No image is misclassified." : "No run here has stored its answers on these images.";
      place.replaceChildren(...notes.map((words) => h("p", { class: "note" }, words)), ...(found.wrong.length ? grid(found, state).filter(Boolean) : [h("p", { class: "empty" }, none)]));
    }
    async function ask() {
      const reply = await fetch(url(`images?folder=${encodeURIComponent(document.folder)}&run=${encodeURIComponent(state.run)}&split=${state.split}`));
      if (!reply.ok) return place.replaceChildren(h("p", { class: "note" }, await reply.text()));
      const found = await reply.json();
      if (found.pixels) found.bytes = Uint8Array.from(atob(found.pixels), (letter) => letter.charCodeAt(0));
      show(found);
    }
    ask();
    return h("div", { class: "images" }, tools, place);
  }
  convscape.images = { images };
})();
