// Pictures of the answer as SVG: differences, levels, heat maps. Each is drawn for a given width.
"use strict";
(() => {
  const { h, s, number, brief, save, tipped } = convscape.dom;
  // Okabe and Ito's colours, https://jfly.uni-koeln.de/color/; black and yellow have no contrast
  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7570b3", "#8c6d31"];
  // of matplotlib's cividis, in nine even steps
  const CIVIDIS = ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"]
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

  function color(share) {
    const place = Math.min(0.99999, Math.max(0, share)) * (CIVIDIS.length - 1);
    const low = Math.floor(place), part = place - low;
    return CIVIDIS[low].map((c, i) => Math.round(c + part * (CIVIDIS[low + 1][i] - c)));
  }
  const css = (rgb) => `rgb(${rgb.join(" ")})`;
  const ink = (rgb) => (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 125 ? "#111" : "#fff");

  function range(values, room = 0.08) {
    const known = values.filter((v) => v !== null && Number.isFinite(v));
    if (!known.length) return [0, 1];
    let low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.02, high + (Math.abs(high) || 1) * 0.02];
    const more = (high - low) * room;
    return [low - more, high + more];
  }
  function ticks(low, high, most = 5) {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((each) => each >= raw);
    const first = Math.ceil(low / step - 1e-9), found = [];
    for (let i = first; i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(10)));
    return found;
  }
  const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  // A figure with a title, what it means, and a button that saves it as SVG.
  function figure(title, caption, svgs, more = []) {
    const list = [svgs].flat();
    const button = h("button", { class: "quiet", title: "save this chart as SVG", onclick: () => list.forEach((svg, i) => download(svg, `${title}${list.length > 1 ? ` ${i + 1}` : ""}`)) }, "SVG");
    return h("figure", {}, h("div", { class: "figurehead" }, h("h3", {}, title), ...more, button),
      caption && h("figcaption", {}, caption), h("div", { class: "pictures" }, list));
  }
  function download(svg, title) {
    const copy = svg.cloneNode(true);
    const all = [svg, ...svg.querySelectorAll("*")], mine = [copy, ...copy.querySelectorAll("*")];
    all.forEach((element, i) => {
      const style = getComputedStyle(element);
      for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "font-weight", "text-anchor"])
        mine[i].setAttribute(name, style.getPropertyValue(name));
    });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    save(`${title.replace(/\W+/g, "_").toLowerCase()}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(copy));
  }
  const picture = (width, height, label, ...parts) =>
    s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, ...parts);
  const text = (x, y, words, attributes = {}) => s("text", { x, y, ...attributes }, words);

  // Each difference with its interval on one axis about zero.
  function differences(section, width, choose) {
    const { metric } = section, effects = section.effects.filter((e) => e.mean !== null).slice(0, 24);
    const unit = metric.unit === "%" ? "points" : metric.unit || metric.name;
    const narrow = width < 560, left = narrow ? 12 : 240, right = narrow ? 78 : 130, row = narrow ? 42 : 28;
    const ends = effects.flatMap((e) => [e.mean - (e.half_width ?? 0), e.mean + (e.half_width ?? 0)]);
    const [low, high] = range([0, ...ends.map((v) => v * metric.scale)]);
    const x = (v) => left + ((v - low) / (high - low)) * (width - left - right);
    const height = effects.length * row + 40, parts = [];
    for (const tick of ticks(low, high, narrow ? 3 : 6))
      parts.push(s("line", { class: tick === 0 ? "zero" : "grid", x1: x(tick), x2: x(tick), y1: 4, y2: height - 34 }),
        text(x(tick), height - 20, String(tick), { class: "tick", "text-anchor": "middle" }));
    parts.push(text(left + (width - left - right) / 2, height - 4, `difference in ${metric.name} (${unit})`, { class: "axis", "text-anchor": "middle" }));
    effects.forEach((effect, i) => {
      const y = i * row + (narrow ? 28 : 18), mean = effect.mean * metric.scale;
      const kind = !effect.is_clear ? "unclear" : effect.is_better ? "better" : "worse";
      const size = Math.abs(mean).toFixed(metric.digits), words = `${Number(size) === 0 ? "" : mean > 0 ? "+" : "−"}${size}`;
      const half = effect.half_width === null ? null : effect.half_width * metric.scale;
      const group = s("g", { class: `effect ${kind}`, tabindex: 0 },
        s("rect", { class: "hit", x: 0, y: i * row + 2, width, height: row - 2 }),
        narrow ? text(left, y - 13, clipped(effect.words, 46), { class: "label" }) : text(left - 12, y + 4, clipped(effect.words, 34), { class: "label", "text-anchor": "end" }),
        half !== null && s("line", { class: "interval", x1: x(mean - half), x2: x(mean + half), y1: y, y2: y }),
        s("circle", { cx: x(mean), cy: y, r: 5.5 }),
        text(width - right + 8, y + 4, half === null || narrow ? words : `${words} ± ${half.toFixed(metric.digits)}`, { class: "value" }));
      tipped(group, () => [effect.sentence]);
      group.addEventListener("click", () => choose(effect));
      parts.push(group);
    });
    return picture(width, height, "each difference with its interval", ...parts);
  }

  // Balanced means at the values of a key, all keys on one scale.
  function levels(section, width) {
    const { metric } = section;
    const all = section.levels.flatMap((l) => l.means.flatMap((m, i) => [m - (l.half_widths[i] ?? 0), m + (l.half_widths[i] ?? 0)].map((v) => (m === null ? null : v * metric.scale))));
    const [low, high] = range(all);
    const columns = Math.max(1, Math.min(section.levels.length, Math.floor(width / 250)));
    const each = Math.min(420, Math.floor((width - 14 * (columns - 1)) / columns)), height = 210, left = 52;
    const y = (v) => 10 + ((high - v) / (high - low)) * (height - 60);
    return section.levels.map((one, place) => {
      const key = section.keys[one.key], n = key.levels.length;
      const x = (i) => left + ((i + 0.5) / n) * (each - left - 8);
      const parts = ticks(low, high, 4).flatMap((t) => [s("line", { class: "grid", x1: left, x2: each - 8, y1: y(t), y2: y(t) }), text(left - 6, y(t) + 4, String(t), { class: "tick", "text-anchor": "end" })]);
      const points = one.means.map((m, i) => (m === null ? null : [x(i), y(m * metric.scale)]));
      parts.push(s("polyline", { class: "line", points: points.filter(Boolean).map((p) => p.join(",")).join(" "), style: { stroke: COLORS[place % COLORS.length] } }));
      one.means.forEach((mean, i) => {
        const every = Math.max(1, Math.ceil((n * 46) / (each - left)));
        if (i % every === 0) parts.push(text(x(i), height - 30, clipped(key.shown[i], Math.max(5, Math.floor((each - left) / n / 7 * every))), { class: "tick", "text-anchor": "middle" }));
        if (mean === null) return;
        const half = one.half_widths[i], at = points[i];
        const group = s("g", { style: { color: COLORS[place % COLORS.length] } },
          half !== null && s("line", { class: "interval", x1: at[0], x2: at[0], y1: y((mean - half) * metric.scale), y2: y((mean + half) * metric.scale) }),
          s("circle", { cx: at[0], cy: at[1], r: 5 }), s("circle", { class: "hit", cx: at[0], cy: at[1], r: 14 }));
        parts.push(tipped(group, () => [`${key.title}=${key.shown[i]}`, `${number(mean, metric)}${half === null ? "" : ` ± ${number(half, metric)}`} ${metric.unit}`]));
      });
      parts.push(text(left + (each - left) / 2, height - 8, key.title, { class: "axis", "text-anchor": "middle" }));
      return picture(each, height, `${metric.title} by ${key.title}`, ...parts);
    });
  }

  // One heat map for each pair of keys, all on one scale, with numbers in the cells.
  function heatMaps(section, width, choose) {
    const { metric } = section;
    const [low, high] = range(section.pairs.flatMap((p) => p.values.flat().map((v) => (v === null ? null : v * metric.scale))), 0);
    const maps = section.pairs.map((pair) => {
      const [rows, columns] = pair.keys.map((k) => section.keys[k]);
      const left = 34 + 7.2 * Math.min(14, Math.max(...rows.shown.map((l) => l.length)));
      const cell = Math.max(46, Math.min(78, (Math.min(width, 460) - left) / columns.levels.length)), tall = 36;
      const w = left + cell * columns.levels.length + 2, height = tall * rows.levels.length + 44, parts = [];
      rows.shown.forEach((level, i) => parts.push(text(left - 6, i * tall + tall / 2 + 4, clipped(level, 14), { class: "tick", "text-anchor": "end" })));
      columns.shown.forEach((level, j) => parts.push(text(left + (j + 0.5) * cell, rows.levels.length * tall + 16, clipped(level, Math.floor(cell / 7)), { class: "tick", "text-anchor": "middle" })));
      pair.values.forEach((line, i) => line.forEach((value, j) => {
        const shown = value === null ? null : value * metric.scale, missing = pair.missing[i][j];
        const fill = shown === null ? null : color(high > low ? (shown - low) / (high - low) : 0.5);
        const words = shown === null ? "—" : `${shown.toFixed(metric.digits)}${missing ? "*" : ""}`;
        const group = s("g", { class: shown === null ? "cell empty" : "cell" },
          s("rect", { x: left + j * cell, y: i * tall, width: cell - 2, height: tall - 2, rx: 2, style: fill ? { fill: css(fill) } : {} }),
          text(left + (j + 0.5) * cell - 1, i * tall + tall / 2 + 4, words, { class: "in", "text-anchor": "middle", style: fill ? { fill: ink(fill) } : {} }));
        tipped(group, () => [`${rows.title}=${rows.shown[i]}, ${columns.title}=${columns.shown[j]}`, shown === null ? missing ?? "no run" : `${metric.title}: ${number(value, metric)}`, shown !== null && missing && `not all runs: ${missing}`]);
        group.addEventListener("click", () => choose([[rows, i], [columns, j]]));
        parts.push(group);
      }));
      parts.push(text(left + (cell * columns.levels.length) / 2, height - 8, columns.title, { class: "axis", "text-anchor": "middle" }),
        text(12, (tall * rows.levels.length) / 2, clipped(rows.title, Math.floor(tall * rows.levels.length / 6)), { class: "axis", "text-anchor": "middle", transform: `rotate(-90 12 ${(tall * rows.levels.length) / 2})` }));
      return picture(w, height, `${rows.title} by ${columns.title}`, ...parts);
    });
    return maps.length ? [...maps, scale(low, high, metric)] : [];
  }
  function scale(low, high, metric) {
    const bars = Array.from({ length: 40 }, (_, i) => s("rect", { x: 10 + i * 5, y: 4, width: 5.5, height: 12, style: { fill: css(color(i / 39)) } }));
    return picture(220, 36, `colours from ${low} to ${high}`, ...bars, text(10, 31, brief(low), { class: "tick" }),
      text(110, 31, metric.title, { class: "tick", "text-anchor": "middle" }), text(210, 31, brief(high), { class: "tick", "text-anchor": "end" }));
  }

  convscape.charts = { COLORS, color, css, range, ticks, clipped, figure, picture, text, differences, levels, heatMaps };
})();
