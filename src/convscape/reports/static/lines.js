// What accuracy costs, all keys at once with brushes, and the learning curves.
"use strict";
(() => {
  const { s, number, brief, tipped } = convscape.dom;
  const { COLORS, color, css, range, ticks, clipped, picture, text } = convscape.charts;
  const MAX_POINTS = 3000;

  // The metric of each configuration against a cost; a line joins those that no other beats.
  function costs(section, cost, width, choose) {
    const { metric, configurations: all } = section;
    const values = all.numbers[metric.name], amounts = all.numbers[cost.name], wide = all.half_widths[metric.name] ?? [];
    const places = values.map((_, i) => i).filter((i) => values[i] !== null && amounts[i] > 0).slice(0, MAX_POINTS);
    const ends = (i) => (places.length > 100 || (wide[i] ?? null) === null ? [values[i]] : [values[i] - wide[i], values[i] + wide[i]]);
    const left = 56, height = 250, [low, high] = range(places.flatMap(ends).map((v) => v * metric.scale), 0.04);
    const logs = range(places.map((i) => Math.log10(amounts[i])), 0.06);
    const x = (v) => left + ((Math.log10(v) - logs[0]) / (logs[1] - logs[0])) * (width - left - 12);
    const y = (v) => 10 + ((high - v) / (high - low)) * (height - 58);
    const parts = ticks(low, high, 5).flatMap((t) => [s("line", { class: "grid", x1: left, x2: width - 12, y1: y(t), y2: y(t) }), text(left - 6, y(t) + 4, String(t), { class: "tick", "text-anchor": "end" })]);
    let after = -Infinity;
    for (let power = Math.floor(logs[0]); power <= logs[1]; power++)
      for (const digit of logs[1] - logs[0] < 0.7 ? [1, 2, 3, 4, 5, 6, 7, 8, 9] : [1, 2, 5]) {
        const value = digit * 10 ** power, at = Math.log10(value);
        if (at < logs[0] || at > logs[1] || x(value) < after + 34) continue;
        after = x(value);
        parts.push(s("line", { class: "grid", x1: x(value), x2: x(value), y1: 10, y2: height - 48 }), text(x(value), height - 32, brief(value), { class: "tick", "text-anchor": "middle" }));
      }
    const front = (all.fronts[cost.name] ?? []).filter((i) => amounts[i] > 0).sort((a, b) => amounts[a] - amounts[b] || values[a] - values[b]);
    let path = "";
    front.forEach((i, n) => (path += n ? `H${x(amounts[i])}V${y(values[i] * metric.scale)}` : `M${x(amounts[i])} ${y(values[i] * metric.scale)}`));
    if (path) parts.push(s("path", { class: "front", d: `${path}H${width - 12}` }));
    const isFront = new Set(front);
    for (const i of places) {
      const at = [x(amounts[i]), y(values[i] * metric.scale)], half = wide[i] ?? null;
      const group = s("g", { class: isFront.has(i) ? "point best" : "point", "data-place": i },
        half !== null && places.length <= 100 && s("line", { class: "whisker", x1: at[0], x2: at[0], y1: y((values[i] - half) * metric.scale), y2: y((values[i] + half) * metric.scale) }),
        s("circle", { cx: at[0], cy: at[1], r: places.length > 300 ? 3 : 5 }));
      tipped(group, () => [`${i + 1}: ${all.label[i]}`, `${metric.title}: ${number(values[i], metric)}${half === null ? "" : ` ± ${number(half, metric)}`}`, `${cost.title}: ${brief(amounts[i])}`]);
      group.addEventListener("click", () => choose(i));
      parts.push(group);
    }
    parts.push(text(left + (width - left) / 2, height - 8, cost.title, { class: "axis", "text-anchor": "middle" }));
    return picture(width, height, `${metric.title} by ${cost.title}`, ...parts);
  }

  // A line per configuration through its values; drag along an axis to keep those in the brush.
  function parallel(section, width, choose, said) {
    const { metric, configurations: all } = section;
    const values = all.numbers[metric.name], [low, high] = range(values.map((v) => (v === null ? null : v * metric.scale)), 0);
    const places = values.map((_, i) => i).filter((i) => values[i] !== null).slice(0, MAX_POINTS);
    const axes = section.keys.filter((k) => k.levels.length > 1).map((key) => ({ title: key.title, ticks: key.shown.map((level, i) => [level, (i + 0.5) / key.levels.length]),
      of: (i) => { const code = all.keys[key.name][i]; return code < 0 ? null : (code + 0.5) / key.levels.length; } }));
    axes.push({ title: metric.title, ticks: ticks(low, high, 5).map((t) => [String(t), (t - low) / (high - low)]), of: (i) => (values[i] * metric.scale - low) / (high - low) });
    const height = 300, top = 28, tall = height - top - 12;
    const step = (width - 110) / (axes.length - 1), x = (a) => 40 + a * step, y = (share) => top + (1 - share) * tall;
    // neither cividis's darkest nor its lightest: thin lines need contrast on dark and light paper
    const shade = (value) => (high > low ? 0.4 + (0.5 * (value - low)) / (high - low) : 0.65);
    const lines = places.slice().reverse().map((i) => {
      // equal values would hide each other, so each line is shifted a little
      const aside = ((i * 0.618) % 1) * 10 - 5, points = axes.map((axis, a) => [axis.of(i), a]).filter(([v]) => v !== null)
        .map(([v, a]) => `${x(a)},${y(v) + (a < axes.length - 1 ? aside : 0)}`);
      const line = s("polyline", { class: "thread", points: points.join(" "), style: { stroke: css(color(shade(values[i] * metric.scale))) } });
      tipped(line, () => [`${i + 1}: ${all.label[i]}`, `${metric.title}: ${number(values[i], metric)}`]);
      line.addEventListener("click", () => choose(i));
      return [i, line];
    });
    const brushes = axes.map(() => null);
    function update() {
      let kept = 0;
      for (const [i, line] of lines) {
        const is = brushes.every((brush, a) => brush === null || (axes[a].of(i) !== null && axes[a].of(i) >= brush[0] && axes[a].of(i) <= brush[1]));
        line.classList.toggle("out", !is);
        kept += is;
      }
      said(brushes.some(Boolean) ? `${kept} of ${lines.length} configurations; click the brush to remove it` : "drag along an axis to select");
    }
    const svg = picture(width, height, "all keys at once", ...lines.map(([, line]) => line));
    axes.forEach((axis, a) => {
      const box = s("rect", { class: "brush", x: x(a) - 8, width: 16, y: 0, height: 0 });
      const hit = s("rect", { class: "hit drag", x: x(a) - 14, width: 28, y: top, height: tall });
      const every = Math.max(1, Math.ceil(axis.ticks.length / 12));
      svg.append(s("line", { class: "axisline", x1: x(a), x2: x(a), y1: top, y2: top + tall }),
        text(x(a), 16, clipped(axis.title, Math.max(5, Math.floor(step / 7))), { class: "axis", "text-anchor": "middle" }),
        ...axis.ticks.filter((_, i) => i % every === 0).map(([words, at]) => text(x(a) + 9, y(at) + 4, clipped(words, Math.max(5, Math.floor(step / 9))), { class: "tick halo" })), box, hit);
      let from = null;
      const at = (event) => Math.min(1, Math.max(0, 1 - ((event.clientY - svg.getBoundingClientRect().top) * (height / svg.getBoundingClientRect().height) - top) / tall));
      hit.addEventListener("pointerdown", (event) => { hit.setPointerCapture(event.pointerId); from = at(event); brushes[a] = null; box.setAttribute("height", 0); update(); event.preventDefault(); });
      hit.addEventListener("pointermove", (event) => {
        if (from === null) return;
        const to = at(event);
        if (Math.abs(to - from) * tall < 4) return;
        brushes[a] = [Math.min(from, to), Math.max(from, to)];
        box.setAttribute("y", y(brushes[a][1]));
        box.setAttribute("height", (brushes[a][1] - brushes[a][0]) * tall);
        update();
      });
      hit.addEventListener("pointerup", () => (from = null));
    });
    update();
    return svg;
  }

  // The metric over the epochs of the best configurations; the band is the range of the seeds.
  function curves(section, width, choose) {
    const { metric, lines } = section.curves, all = section.configurations, left = 56, height = 260;
    const longest = Math.max(...lines.map((l) => l.mean.length));
    const late = (l) => l.mean.slice(metric.unit === "%" ? Math.floor(l.mean.length / 4) : 0);
    const [low, high] = range(lines.flatMap((l) => [...late(l), ...l.high.slice(-1), ...l.low.slice(-1)]));
    const x = (i) => left + (longest > 1 ? i / (longest - 1) : 0.5) * (width - left - 60);
    const y = (v) => 10 + ((high - v) / (high - low)) * (height - 58);
    const id = `clip${Math.random().toString(36).slice(2)}`;
    const parts = [s("clipPath", { id }, s("rect", { x: left, y: 6, width: width - left, height: height - 50 }))];
    parts.push(...ticks(low, high, 5).flatMap((t) => [s("line", { class: "grid", x1: left, x2: width - 60, y1: y(t), y2: y(t) }), text(left - 6, y(t) + 4, String(t), { class: "tick", "text-anchor": "end" })]));
    for (const t of ticks(1, Math.max(2, longest), 8)) if (Number.isInteger(t) && t >= 1 && t <= longest) parts.push(text(x(t - 1), height - 32, String(t), { class: "tick", "text-anchor": "middle" }));
    let above = [];
    lines.forEach((line, n) => {
      const known = line.mean.map((v, i) => [v, i]).filter(([v]) => v !== null);
      if (!known.length) return;
      const band = [...known.map(([, i]) => `${x(i)},${y(line.high[i])}`), ...known.slice().reverse().map(([, i]) => `${x(i)},${y(line.low[i])}`)];
      const [last, end] = known[known.length - 1];
      let place = y(last) + 4;
      while (above.some((other) => Math.abs(other - place) < 13)) place += 13;
      above.push(place);
      const group = s("g", { class: "curve", style: { color: COLORS[n % COLORS.length] } },
        s("g", { "clip-path": `url(#${id})` }, s("polygon", { class: "band", points: band.join(" ") }), s("polyline", { class: "line", points: known.map(([v, i]) => `${x(i)},${y(v)}`).join(" ") })),
        text(x(end) + 6, place, `no. ${line.place + 1}`, { class: "label" }));
      tipped(group, () => [`${line.place + 1}: ${all.label[line.place]}`, `${metric.title}: ${last.toFixed(metric.digits)} at the end`]);
      group.addEventListener("click", () => choose(line.place));
      parts.push(group);
    });
    parts.push(text(left + (width - left - 60) / 2, height - 8, "epoch", { class: "axis", "text-anchor": "middle" }));
    return picture(width, height, `${metric.title} over the epochs`, ...parts);
  }

  convscape.lines = { costs, parallel, curves };
})();
