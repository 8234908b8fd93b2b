// The answer of a folder of runs: question, verdict, the picture that shows it, what it cost; then
// the sentences, the other pictures, and where everything came from.
"use strict";
(() => {
  const { h, counted, duration, grouped } = convscape.dom;
  const { figure, differences, levels, heatMaps } = convscape.charts;

  function bill(section) {
    const { runs, seeds, seconds, statuses } = section.cost, ok = statuses.ok ?? 0;
    const words = [ok === runs ? counted(runs, "run") : `${grouped(ok)} of ${counted(runs, "run")} finished`, counted(seeds, "seed"), `${duration(seconds)} of training`];
    for (const [status, n] of Object.entries(statuses)) if (status !== "ok") words.push(`${grouped(n)} ${status.replaceAll("_", " ")}`);
    return words.join(" · ");
  }
  function opening(section, document, isFirst, width) {
    const head = h("p", { class: "soft data" }, `${section.data} · ${bill(section)}`);
    if (isFirst && document.claim) return [head, ...convscape.claim.opening(document.claim, width)];
    const running = (section.cost.statuses.running ?? 0) > 0, { kind, words } = section.verdict;
    const word = { clear: "clear", open: "undecided", none: "no comparison" }[kind];
    return [head, h("h2", { class: "question" }, section.question),
      h("p", { class: "verdict" }, h("strong", { class: `badge ${kind}` }, running ? `${word} so far` : word), ` ${words}`)];
  }

  // `go`: {run(row), configuration(place), filter(text)} lead to a run and to the table.
  function answer(document, width, go) {
    const parts = document.sections.map((section, i) => one(section, document, width, go, i === 0));
    return h("div", { class: "answer" }, parts, document.notes.map((words) => h("p", { class: "note" }, words)), h("p", { class: "soft" }, document.intervals));
  }
  function one(section, document, width, go, isFirst) {
    const all = section.configurations, metric = section.metric, hasMetric = metric !== null && all.numbers[metric.name] !== undefined;
    const costs = section.facts.filter((f) => ["num_parameters", "macs", "seconds/fit"].includes(f.name) && all.numbers[f.name] && (!metric || f.name !== metric.name));
    const plot = (make, most) => Math.min(most, width) && make(Math.min(most, width));
    const pictures = isFirst ? document.pictures.map((p) => h("figure", {}, h("img", { src: p.source, alt: p.caption }), h("figcaption", {}, p.caption))) : [];
    const body = [...opening(section, document, isFirst, width), ...pictures.slice(0, 1)];
    if (hasMetric && section.effects.length)
      body.push(figure("What each change does", "Each line is one value instead of another, in runs that are otherwise equal; a bar that does not touch the zero line is a clear difference. Click to see the runs.",
        plot((w) => differences(section, w, (e) => go.filter(section, `${e.key}=${e.level}`)), 860)));
    if (hasMetric && costs.length && section.effects.length === 0 && all.n.length > 1) body.push(costFigure(section, costs, width, go));
    body.push(h("h3", {}, "In words"), h("ul", { class: "words" }, section.sentences.map((words) => h("li", {}, words))), h("p", { class: "soft" }, section.ranking));
    body.push(...best(section, go));
    if (hasMetric && section.pairs.length)
      body.push(figure("Each pair of keys", "Means over those settings of the other keys and those seeds that finished in every cell compared. * some runs are missing; — none could finish: point at the cell to see why. Click to see its runs.",
        heatMaps(section, width, (pairs) => go.filter(section, pairs.map(([key, i]) => `${key.name}=${key.levels[i]}`).join(" ")))));
    if (hasMetric && section.levels.length) body.push(figure("Each key alone", "Balanced means over the other keys; bars: 95 % interval over seeds.", levels(section, width)));
    if (hasMetric && costs.length && all.n.length > 1 && section.effects.length) body.push(costFigure(section, costs, width, go));
    if (hasMetric && section.keys.filter((k) => k.levels.length > 1).length > 1 && all.n.length > 1) {
      const said = h("span", { class: "soft", role: "status" });
      body.push(figure("All keys at once", "A line per configuration, coloured by the metric.", convscape.lines.parallel(section, Math.min(980, Math.max(width, 110 * section.keys.length)), (i) => go.configuration(section, i), (words) => (said.textContent = words)), [said]));
    }
    if (section.curves) body.push(figure("Learning curves", "The best configurations, by number: mean and range over seeds.", plot((w) => convscape.lines.curves(section, w, (i) => go.configuration(section, i)), 860)));
    body.push(...pictures.slice(1), ...unfinished(section, go), origins(section, document));
    return h("section", { class: "data" }, body);
  }
  function costFigure(section, costs, width, go) {
    const columns = Math.max(1, Math.min(costs.length, Math.floor(width / 300)));
    const each = Math.min(420, Math.floor((width - 14 * (columns - 1)) / columns));
    return figure("What it costs", "One point per configuration; the line joins those that no other beats at the same or a lower cost. Bars: 95 % interval over seeds.", costs.map((cost) => convscape.lines.costs(section, cost, each, (i) => go.configuration(section, i))));
  }
  // The ten best, as a plain table that can be printed; all are in Runs.
  function best(section, go) {
    const all = section.configurations, shown = section.metrics.filter((m) => all.numbers[m.name]).slice(0, 3);
    if (!all.n.length) return [];
    const facts = section.facts.filter((f) => all.numbers[f.name]).slice(0, 3), { number, amount } = convscape.dom;
    const rows = all.n.slice(0, 10).map((n, i) => h("tr", { onclick: () => go.configuration(section, i) }, h("td", {}, String(i + 1)),
      section.keys.map((key) => h("td", { class: "text" }, key.shown[all.keys[key.name][i]] ?? "")), h("td", {}, n < all.num_runs[i] ? `${n} of ${all.num_runs[i]}` : String(n)),
      shown.map((m) => h("td", {}, number(all.numbers[m.name][i], m), h("span", { class: "soft" }, half(all, m, i)))), facts.map((f) => h("td", {}, amount(all.numbers[f.name][i], f.digits)))));
    const head = ["", ...section.keys.map((k) => k.title), "runs", ...shown.map((m) => m.title), ...facts.map((f) => f.title)];
    return [h("h3", {}, `Configurations${section.metric ? `, best first by ${section.metric.name}` : ""}`),
      h("div", { class: "scroll" }, h("table", { class: "best" }, h("thead", {}, h("tr", {}, head.map((words, i) => h("th", { class: i > 0 && i <= section.keys.length ? "text" : null }, words)))), h("tbody", {}, rows))),
      all.n.length > 10 && h("p", {}, h("button", { class: "link", onclick: () => go.filter(section, "", true) }, `All ${all.n.length.toLocaleString("en-US")} configurations`))];
  }
  function half(all, metric, i) {
    const value = all.half_widths[metric.name]?.[i];
    return value === null || value === undefined ? "" : ` ± ${convscape.dom.number(value, metric)}`;
  }
  function unfinished(section, go) {
    if (!section.unfinished.length) return [];
    return [h("h3", {}, "Not finished"), h("div", { class: "scroll" }, h("table", { class: "best" }, h("thead", {}, h("tr", {}, ["status", "runs", "why"].map((w, i) => h("th", { class: i === 1 ? null : "text" }, w)))),
      h("tbody", {}, section.unfinished.slice(0, 40).map((g) => h("tr", { title: g.runs.slice(0, 20).join(", "), onclick: () => go.filter(section, `status=${g.status}`) }, h("td", { class: "text" }, g.status), h("td", {}, String(g.runs.length)), h("td", { class: "text wrap" }, typeof g.reason === "string" ? g.reason : ""))))))];
  }
  function origins(section, document) {
    const entries = Object.entries(section.origins).filter(([, values]) => values.length);
    const differ = entries.filter(([, values]) => values.length > 1);
    const rows = (pairs) => h("table", { class: "facts" }, pairs.map(([name, words]) => h("tr", {}, h("td", { class: "text" }, name), h("td", { class: "text wrap" }, words))));
    const files = [["results.csv", "results.csv"], ...section.figures.flatMap((f) => [[`${f}.svg`, `${f}.svg`], [`${f}.png`, `${f}.png`]])];
    return h("div", {}, differ.map(([name, values]) => h("p", { class: "note" }, `Rows differ in ${name}: ${values.join(", ")}.`)),
      h("details", {}, h("summary", {}, "Where it came from: versions, hardware, data"), rows(entries.map(([name, values]) => [name, values.join(", ")]))),
      section.configurations.commands.length > 0 && h("details", {}, h("summary", {}, "The command of each configuration"), rows(section.configurations.commands.map((line, i) => [String(i + 1), h("code", {}, line)]))),
      !convscape.live && h("details", {}, h("summary", {}, "Files next to this page"), h("ul", {}, files.map(([words, place]) => h("li", {}, h("a", { href: place.split("/").map(encodeURIComponent).join("/") }, words))))));
  }

  convscape.answer = { answer, bill, half };
})();
