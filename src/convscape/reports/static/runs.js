// All runs, or their configurations over seeds, as one table; a run in detail; two or more compared.
"use strict";
(() => {
  const { h, number, amount, duration, counted } = convscape.dom;
  const text = (id, title, texts, more = {}) => ({ id, title, kind: "text", value: (row) => texts[row], text: (row) => texts[row] ?? "", ...more });
  const place = (folder) => folder.split("/").map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");

  function shared(section, rows, halves) {
    const keys = section.keys.map((key) => {
      const level = (row) => rows.keys[key.name][row];
      return { ...text(key.name, key.title, rows.keys[key.name].map((code) => key.levels[code] ?? "")), text: (row) => key.shown[level(row)] ?? "", order: level };
    });
    const metrics = section.metrics.filter((m) => rows.numbers[m.name]).map((m, i) => ({ id: m.name, title: m.title, kind: "number", up: m.direction === "min", hidden: i > 3,
      value: (row) => rows.numbers[m.name][row], text: (row) => number(rows.numbers[m.name][row], m), half: halves ? (row) => convscape.answer.half(rows, m, row) : undefined }));
    const facts = section.facts.filter((f) => rows.numbers[f.name]).map((f, i) => ({ id: f.name, title: f.title, kind: "number", up: true, hidden: i > 3, value: (row) => rows.numbers[f.name][row], text: (row) => amount(rows.numbers[f.name][row], f.digits) }));
    return { keys, metrics, facts };
  }
  function runColumns(section) {
    const { runs } = section, { keys, metrics, facts } = shared(section, runs, false);
    const isSwept = keys.some((k) => k.id === "seed");
    const progress = runs.epochs.map((n, i) => (runs.planned[i] === null ? String(n) : `${n}/${runs.planned[i]}`));
    const columns = [text("run", "run", runs.run, { link: true }), text("status", "status", runs.status, { name: (row) => `status ${runs.status[row]}` }), ...keys];
    if (!isSwept) columns.push({ id: "seed", title: "seed", kind: "number", up: true, value: (row) => runs.seed[row], text: (row) => String(runs.seed[row]) });
    columns.push(...metrics, ...facts, text("receptive_field", "receptive field", runs.receptive_field, { hidden: true }),
      { ...text("epochs", "epochs", progress), kind: "number", order: (row) => runs.epochs[row], value: (row) => runs.epochs[row] });
    if (runs.left.some((v) => v !== null)) columns.push({ id: "left", title: "time left", kind: "number", up: true, value: (row) => runs.left[row], text: (row) => duration(runs.left[row]) });
    if (runs.reason.some((v) => v !== null)) columns.push(text("reason", "why", runs.reason));
    return columns;
  }
  function groupColumns(section) {
    const all = section.configurations, { keys, metrics, facts } = shared(section, all, true);
    return [{ id: "number", title: "no.", kind: "number", up: true, link: true, value: (row) => row + 1, text: (row) => String(row + 1) }, ...keys.filter((k) => k.id !== "seed"),
      { id: "runs", title: "runs", kind: "number", value: (row) => all.n[row], text: (row) => (all.n[row] < all.num_runs[row] ? `${all.n[row]} of ${all.num_runs[row]}` : String(all.n[row])) }, ...metrics, ...facts];
  }

  const stateOf = (state, key) => (state.tables[key] ??= { pinned: new Set(), filter: "", hidden: undefined });
  function runs(document, state, open) {
    return h("div", { class: "allruns" }, document.sections.map((section, i) => {
      const canGroup = section.configurations.n.length > 0, isGrouped = canGroup && state.grouped === true;
      const mine = stateOf(state, `${i}${isGrouped ? "g" : "r"}`);
      const toggle = canGroup && h("label", { class: "toggle" }, Object.assign(h("input", { type: "checkbox", onchange: (event) => { state.grouped = event.target.checked; state.redraw(); } }), { checked: isGrouped }), "mean over seeds");
      return h("section", {}, h("h2", {}, section.data, h("span", { class: "soft" }, ` ${convscape.answer.bill(section)}`)), convscape.table.table({
        columns: isGrouped ? groupColumns(section) : runColumns(section), count: isGrouped ? section.configurations.n.length : section.runs.run.length, state: mine,
        note: isGrouped ? "configuration" : "run", open: (row) => open(section, isGrouped ? { place: row } : { row }), rowId: (row) => (isGrouped ? section.configurations.label[row] : section.runs.folder[row]), tools: [toggle] }));
    }));
  }

  // A run, or a configuration with its runs, in the side panel.
  function details(section, what, close, show) {
    const { runs: all, configurations } = section;
    const columns = (what.row !== undefined ? runColumns : groupColumns)(section), row = what.row ?? what.place;
    const facts = h("table", { class: "facts" }, columns.filter((c) => String(c.text(row)) !== "").map((c) => h("tr", {}, h("td", { class: "text" }, c.title), h("td", { class: "text wrap" }, `${c.text(row)}${c.half?.(row) ?? ""}`))));
    const title = what.row !== undefined ? all.run[row] : `${row + 1}: ${configurations.label[row]}`;
    const links = (r) => [convscape.live ? h("code", {}, all.folder[r]) : h("a", { href: `${place(all.folder[r])}/` }, all.folder[r] === "." ? "its folder" : all.folder[r]),
      convscape.live && all.checkpoint[r] === 1 && all.status[r] === "ok" && h("button", { onclick: () => show.network(all.folder[r]) }, "Network")];
    const command = what.place !== undefined && configurations.commands[row];
    return h("aside", { class: "drawer", role: "dialog", "aria-label": title }, h("div", { class: "figurehead" }, h("h2", {}, title), h("button", { class: "quiet", "aria-label": "close", onclick: close }, "✕")),
      what.row !== undefined ? h("p", {}, links(row)) : h("ul", {}, configurations.rows[row].slice(0, 50).map((r) => h("li", {}, h("button", { class: "link", onclick: () => show.run(r) }, all.run[r]), ` seed ${all.seed[r]} `, links(r)))),
      command && h("p", {}, h("code", {}, command)), facts);
  }

  // What is pinned, side by side, with differing lines first; if nothing is, how to pin.
  function compare(document, state) {
    const parts = document.sections.flatMap((section, i) => {
      const sides = [["r", runColumns(section), section.runs.folder, section.runs.run], ["g", groupColumns(section), section.configurations.label, section.configurations.label]]
        .flatMap(([kind, columns, ids, titles]) => ids.map((id, row) => ({ columns, row, title: titles[row], id, kind })).filter((side) => stateOf(state, `${i}${kind}`).pinned.has(side.id))).slice(0, 8);
      return sides.length ? [h("section", {}, h("h2", {}, section.data), sides.length === 1 && h("p", { class: "soft" }, "Pin another one in Runs to compare it with this one."), sideBySide(section, sides))] : [];
    });
    return h("div", {}, parts.length ? parts : h("p", { class: "empty" }, "Pin two or more runs or configurations with ☆ in Runs to see them side by side here."));
  }
  function sideBySide(section, sides) {
    const ids = [...new Set(sides.flatMap((side) => side.columns.map((c) => c.id)))].filter((id) => id !== "run" && id !== "number");
    const lines = ids.map((id) => ({ id, cells: sides.map((side) => side.columns.find((c) => c.id === id)).map((c, i) => (c ? `${c.text(sides[i].row)}${c.half?.(sides[i].row) ?? ""}` : "")), values: sides.map((side) => side.columns.find((c) => c.id === id)?.value(side.row)) }))
      .filter((line) => line.cells.some(Boolean));
    lines.forEach((line) => (line.differs = new Set(line.cells).size > 1));
    const title = (id) => sides.flatMap((s) => s.columns).find((c) => c.id === id).title, metric = (id) => section.metrics.find((m) => m.name === id);
    const body = [...lines.filter((l) => l.differs), ...lines.filter((l) => !l.differs)].map((line) => {
      const direction = line.differs && (metric(line.id)?.direction ?? (["num_parameters", "macs", "seconds/fit"].includes(line.id) ? "min" : null));
      const known = line.values.filter((v) => typeof v === "number"), best = direction ? (direction === "max" ? Math.max(...known) : Math.min(...known)) : null;
      return h("tr", { class: line.differs ? null : "same" }, h("th", { class: "text", scope: "row" }, title(line.id)), line.cells.map((words, i) => h("td", { class: best !== null && line.values[i] === best ? "top" : null }, words)));
    });
    return h("div", { class: "scroll" }, h("table", { class: "best compare" }, h("thead", {}, h("tr", {}, h("th"), sides.map((side) => h("th", {}, side.title)))), h("tbody", {}, body)));
  }

  convscape.runs = { runs, details, compare, counted };
})();
