// One table of any length: only the visible rows are in the page. Sort, filter, columns, pins, copy.
"use strict";
(() => {
  const { h, copy, save, counted } = convscape.dom;
  const ROW = 29, SPARE = 12;

  // What is typed, as tests of a row: kernel_size=3 acc>0.98 status!=ok text
  function parse(typed, columns) {
    const unknown = [];
    const tests = (typed.match(/\S+/g) ?? []).map((word) => {
      const match = /^(.+?)(!=|>=|<=|=|>|<)(.*)$/.exec(word);
      if (!match) {
        const sought = word.toLowerCase();
        return (row) => columns.some((c) => c.kind === "text" && String(c.text(row)).toLowerCase().includes(sought));
      }
      const [, name, sign, wanted] = match;
      const column = find(name, columns);
      if (!column) {
        unknown.push(name);
        return () => true;
      }
      if (wanted === "") return () => true; // still being typed
      const percent = wanted.endsWith("%");
      const limit = Number(percent ? wanted.slice(0, -1) : wanted) / (percent ? 100 : 1);
      return (row) => {
        const value = column.value(row), shown = String(column.text(row)), number = column.kind !== "text" ? value : value === "" ? NaN : Number(value);
        const same = [shown, String(value)].some((text) => text.toLowerCase() === wanted.toLowerCase()) || (Number.isFinite(limit) && shown !== "" && number === limit);
        if (sign === "=") return same;
        if (sign === "!=") return !same;
        if (value === null || value === undefined || !Number.isFinite(number) || !Number.isFinite(limit)) return false;
        return { ">": number > limit, "<": number < limit, ">=": number >= limit, "<=": number <= limit }[sign];
      };
    });
    return { test: (row) => tests.every((each) => each(row)), unknown };
  }
  function find(name, columns) {
    const sought = name.toLowerCase(), leaf = (text) => text.toLowerCase().split(/[./]/).pop();
    return columns.find((c) => c.id.toLowerCase() === sought || c.title.toLowerCase() === sought) ?? columns.find((c) => leaf(c.id) === sought);
  }

  const cell = { csv: (t) => (/[",\n\r]/.test(t) ? `"${t.replaceAll('"', '""')}"` : t), md: (t) => t.replace(/[\\|`*_<\[\]]/g, "\\$&").replace(/\s+/g, " "),
    tex: (t) => t.replace(/[\\{}$&#^_%~]/g, (c) => ({ "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}" })[c] ?? `\\${c}`).replaceAll("±", "$\\pm$") };
  const WRITERS = {
    CSV: (rows) => rows.map((r) => r.map(cell.csv).join(",")).join("\n") + "\n",
    Markdown: ([head, ...rows], kinds) => [head, kinds.map((k) => (k === "text" ? "---" : "---:")), ...rows].map((r, i) => `| ${r.map((t) => (i === 1 ? t : cell.md(t))).join(" | ")} |`).join("\n") + "\n",
    LaTeX: ([head, ...rows], kinds) => `\\begin{tabular}{${kinds.map((k) => (k === "text" ? "l" : "r")).join("")}}\n\\toprule\n${head.map(cell.tex).join(" & ")} \\\\\n\\midrule\n${rows.map((r) => r.map(cell.tex).join(" & ") + " \\\\").join("\n")}\n\\bottomrule\n\\end{tabular}\n`,
  };

  // columns: [{id, title, kind: "text"|"number", value(row), text(row), half?(row), hidden}], rows 0..count-1;
  // state is kept by the caller, so that it outlives the data: {filter, sort, up, hidden: Set, pinned: Set}
  function table({ columns, count, state, open, rowId, note, tools = [] }) {
    let order = [];
    state.hidden ??= new Set(columns.filter((c) => c.hidden).map((c) => c.id));
    const visible = () => columns.filter((c) => !state.hidden.has(c.id));
    const said = h("span", { class: "soft", role: "status" });
    const filter = h("input", { type: "search", placeholder: "filter: kernel_size=3 acc>0.98", "aria-label": "filter", spellcheck: "false", value: state.filter ?? "" });
    const head = h("tr"), body = h("tbody"), group = h("colgroup");
    const grid = h("table", { class: "runs" }, group, h("thead", {}, head), body);
    const scroll = h("div", { class: "window", tabindex: 0 }, grid);
    const box = h("div", { class: "columns", hidden: true });
    const copied = h("select", { "aria-label": "copy the table as" }, h("option", { value: "" }, "Copy as…"), Object.keys(WRITERS).map((k) => h("option", {}, k)), h("option", { value: "file" }, "Save CSV file"));
    copied.addEventListener("change", async () => {
      const shown = visible(), kinds = shown.map((c) => c.kind), kind = copied.value;
      copied.value = "";
      // CSV has all digits of a key; a table for a paper has those that are shown
      const whole = kind === "file" || kind === "CSV", cellOf = (c, row) => `${whole && c.kind === "text" ? c.value(row) ?? "" : c.text(row)}${c.half?.(row) ?? ""}`;
      const texts = [shown.map((c) => c.title), ...order.map((row) => shown.map((c) => cellOf(c, row)))];
      if (kind === "file") return save("runs.csv", "text/csv", WRITERS.CSV(texts));
      await copy(WRITERS[kind](texts, kinds));
      said.textContent = `${counted(order.length, "row")} copied as ${kind}`;
    });
    columns.forEach((c) => {
      const check = h("input", { type: "checkbox", onchange: () => { state.hidden[check.checked ? "delete" : "add"](c.id); layout(); } });
      check.checked = !state.hidden.has(c.id);
      box.append(h("label", {}, check, c.title));
    });
    const choose = h("button", { "aria-expanded": "false", onclick: () => { box.hidden = !box.hidden; choose.setAttribute("aria-expanded", String(!box.hidden)); } }, "Columns");

    function widths() {
      return visible().map((c) => {
        let most = c.title.length + 2;
        const step = Math.max(1, Math.floor(count / 2000));
        for (let row = 0; row < count; row += step) most = Math.max(most, String(c.text(row)).length + (c.half?.(row) ?? "").length);
        return Math.min(c.kind === "text" ? 34 : 22, most);
      });
    }
    function layout() {
      const shown = visible(), all = widths();
      group.replaceChildren(h("col", { style: { width: "2rem" } }), ...all.map((w) => h("col", { style: { width: `calc(${w}ch + 1.4rem)` } })));
      grid.style.width = `calc(${all.reduce((a, b) => a + b, 0)}ch + ${all.length * 1.4 + 2}rem)`;
      head.replaceChildren(h("th", { "aria-label": "pin" }), ...shown.map((c) => {
        const sorted = state.sort === c.id ? (state.up ? "ascending" : "descending") : null;
        return h("th", { class: c.kind, "aria-sort": sorted, scope: "col" }, h("button", { title: c.id, onclick: () => { state.up = state.sort === c.id ? !state.up : c.kind === "text" || c.up === true; state.sort = c.id; arrange(); layout(); } }, c.title));
      }));
      draw(true);
    }
    function arrange() {
      const { test, unknown } = parse(filter.value, columns);
      state.filter = filter.value;
      order = [];
      for (let row = 0; row < count; row++) if (test(row)) order.push(row);
      const column = columns.find((c) => c.id === state.sort);
      if (column) {
        const keys = new Map(order.map((row) => [row, column.order ? column.order(row) : column.value(row)])), sign = state.up ? 1 : -1;
        const isNone = (v) => v === null || v === undefined || v === "";
        order.sort((a, b) => {
          const one = keys.get(a), other = keys.get(b);
          if (isNone(one) || isNone(other)) return isNone(one) - isNone(other) || a - b;
          return (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true })) * sign || a - b;
        });
      }
      const pinned = order.filter((row) => state.pinned.has(rowId(row)));
      if (pinned.length) order = [...pinned, ...order.filter((row) => !state.pinned.has(rowId(row)))];
      filter.classList.toggle("wrong", unknown.length > 0);
      said.textContent = unknown.length ? `no column is called ${unknown.join(", ")}` : order.length < count ? `${order.length.toLocaleString("en-US")} of ${counted(count, note)}` : counted(count, note);
    }
    let drawn = "";
    function draw(isForced = false) {
      const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - SPARE);
      const last = Math.min(order.length, first + Math.ceil((scroll.clientHeight || 600) / ROW) + 2 * SPARE);
      const now = `${first} ${last} ${order.length}`;
      if (!isForced && now === drawn) return;
      drawn = now;
      const shown = visible(), space = (rows) => rows > 0 && h("tr", { "aria-hidden": "true" }, h("td", { class: "space", colspan: shown.length + 1, style: { height: `${rows * ROW}px` } }));
      body.replaceChildren(...[space(first), ...order.slice(first, last).map((row) => line(row, shown)), space(order.length - last)].filter(Boolean));
    }
    function line(row, shown) {
      const id = rowId(row), isPinned = state.pinned.has(id);
      const pin = h("button", { class: "pin", title: "pin: keep it on top, and compare it", "aria-pressed": String(isPinned), onclick: (event) => { event.stopPropagation(); state.pinned[isPinned ? "delete" : "add"](id); arrange(); draw(true); } }, isPinned ? "★" : "☆");
      return h("tr", { class: isPinned ? "pinned" : null, onclick: () => open(row) }, h("td", {}, pin), shown.map((c) => {
        const words = String(c.text(row)), half = c.half?.(row) ?? "";
        return h("td", { class: `${c.kind} ${c.name?.(row) ?? ""}`, title: words.length > 30 ? words : null }, c.link ? h("button", { class: "link", onclick: (e) => { e.stopPropagation(); open(row); } }, words) : words, half && h("span", { class: "soft" }, half));
      }));
    }
    let waiting = 0;
    filter.addEventListener("input", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { arrange(); scroll.scrollTop = 0; draw(true); }); });
    scroll.addEventListener("scroll", () => { state.scrollTop = scroll.scrollTop; draw(); }, { passive: true });
    arrange();
    layout();
    new ResizeObserver(() => draw()).observe(scroll);
    requestAnimationFrame(() => (scroll.scrollTop = state.scrollTop ?? 0));
    return h("div", { class: "table" }, h("div", { class: "tools" }, filter, tools, choose, copied, said), box, scroll);
  }

  convscape.table = { table, parse };
})();
