// One page for two places: a file that contains its document, and a TensorBoard tab that requests it.
"use strict";
(() => {
  const { h, hideTip, counted, duration } = convscape.dom;
  const state = { tab: "Answer", tables: {}, grouped: false, folder: "", redraw: () => draw() };
  let board = null, values = null, drawer = null, url = null;

  function tabs() {
    const names = ["Answer", "Runs", "Compare", ...(convscape.live ? ["Network", "Images"] : [])];
    return h("nav", { role: "tablist" }, names.map((name) => h("button", { role: "tab", "aria-selected": String(state.tab === name), onclick: () => turn(name) }, name)));
  }
  function take(found) {
    values = found;
    for (const key of values.sections?.flatMap((s) => s.keys) ?? []) key.shown ??= key.levels;
  }
  function turn(name) {
    state.tab = name;
    close();
    draw();
  }
  function close() {
    drawer?.remove();
    drawer = null;
  }
  function open(section, what) {
    close();
    const show = { run: (row) => open(section, { row }), network: (folder) => { state.network = folder; turn("Network"); } };
    drawer = board.appendChild(convscape.runs.details(section, what, close, show));
  }
  const go = {
    configuration: (section, place) => open(section, { place }),
    filter: (section, typed, grouped = false) => {
      state.grouped = grouped;
      const key = `${values.sections.indexOf(section)}${grouped ? "g" : "r"}`;
      state.tables[key] = { pinned: new Set(), ...state.tables[key], filter: typed };
      turn("Runs");
    },
  };
  function draw() {
    hideTip();
    const width = Math.max(300, Math.min(1180, board.clientWidth) - 32);
    const main = h("main", { class: state.tab.toLowerCase() });
    const folders = values.folders?.length > 1 && h("select", { "aria-label": "folder", onchange: (event) => { state.folder = event.target.value; state.tables = {}; delete state.images; ask(); } }, values.folders.map((f) => h("option", { value: f, selected: f === values.folder }, f)));
    board.replaceChildren(h("header", {}, h("h1", {}, values.title), folders, tabs(), progress()), main);
    if (values.empty) main.append(h("p", { class: "empty" }, values.empty));
    else if (state.tab === "Answer") main.append(convscape.answer.answer(values, width, go));
    else if (state.tab === "Runs") main.append(convscape.runs.runs(values, state, open));
    else if (state.tab === "Compare") main.append(convscape.runs.compare(values, state));
    else if (state.tab === "Network") main.append(convscape.network.network(values, state, url));
    else main.append(convscape.images.images(values, state, url));
    if (drawer) board.append(drawer);
  }

  // How far a sweep is, until it has ended.
  function progress() {
    const { total, done, running, todo, left } = values.progress ?? { total: 0, done: 0 };
    if (done >= total) return null;
    const words = [`${counted(done, "run")} of ${total.toLocaleString("en-US")} done`, running && `${running} running`, todo && `${todo.toLocaleString("en-US")} to do`, left !== null && `about ${duration(left)} left`];
    return h("p", { class: "progress", role: "status" }, h("progress", { max: total, value: done, "aria-label": "runs done" }), words.filter(Boolean).join(" · "));
  }

  // --- a tab that requests updates ---------------------------------------------------------------
  let tag = "";
  async function ask() {
    try {
      const reply = await fetch(url(`document?folder=${encodeURIComponent(state.folder)}&tag=${encodeURIComponent(tag)}`));
      if (reply.ok && reply.status !== 204) {
        const found = await reply.json();
        tag = found.tag;
        const isApart = state.tab === "Network" || state.tab === "Images"; // they request their own data
        const isBusy = isApart || board.contains(document.activeElement) && document.activeElement.matches("input, select");
        take(found);
        state.folder = found.folder ?? "";
        if (!isBusy || !board.firstChild) draw();
        else if (!isApart) setTimeout(draw, 3000);
      }
    } catch {
      // TensorBoard was stopped; the page keeps what it shows
    }
  }
  async function live(address) {
    convscape.live = true;
    url = address;
    begin();
    board.append(h("p", { class: "empty" }, "Reading the runs…"));
    await ask();
    setInterval(() => document.visibilityState === "visible" && ask(), 5000);
  }
  function begin() {
    board = document.getElementById("board") ?? document.body.appendChild(h("div", { id: "board" }));
    document.addEventListener("keydown", (event) => event.key === "Escape" && close());
    let width = board.clientWidth;
    addEventListener("resize", () => {
      if (Math.abs(board.clientWidth - width) < 2 || !values || state.tab !== "Answer") return;
      width = board.clientWidth;
      draw();
    });
  }

  convscape.board = { live };
  const inside = document.getElementById("document");
  if (inside) {
    begin();
    take(JSON.parse(inside.textContent));
    draw();
  }
})();
