// The first screen of a claim: statement, verdict, and each difference next to what was expected.
"use strict";
(() => {
  const { h, s, tipped } = convscape.dom;
  const { figure, picture, range, text, ticks } = convscape.charts;
  const KINDS = { supported: "clear", "not supported": "against", undecided: "open" };
  const COLORS = { supported: "better", "not supported": "worse", undecided: "unclear" };

  function opening(claim, width) {
    const axes = Map.groupBy(claim.findings.filter((f) => f.mean !== null), (f) => (f.metric.unit === "%" ? "points" : f.metric.unit || f.metric.name));
    const svgs = [...axes].map(([unit, findings]) => differences(findings, unit, Math.min(860, width)));
    return [
      h("h2", { class: "question" }, claim.question),
      h("p", { class: "verdict" }, h("strong", { class: `badge ${KINDS[claim.verdict]}` }, claim.verdict), ` ${claim.says}`),
      svgs.length > 0 && figure("What was found, and what was expected", "Dots: mean over seeds; bars: 95 % interval. Shaded: where the claim expects the whole bar.", svgs),
      h("details", {}, h("summary", {}, "In words, and the result of every arm"), h("ul", { class: "words" }, claim.findings.map((f) => h("li", {}, h("strong", {}, `${f.verdict}: `), `${f.says}: ${f.words}`))), h("p", { class: "soft" }, claim.budget)),
    ];
  }
  function differences(findings, unit, width) {
    const row = 46, left = 14, right = 14, height = findings.length * row + 42, isShare = unit === "points";
    const scaled = (f, name) => (f[name] === null ? null : f[name] * f.metric.scale);
    const known = findings.flatMap((f) => [scaled(f, "mean"), scaled(f, "low"), scaled(f, "high"), 1.3 * scaled(f, "by") * (f.expect === "lower" ? -1 : 1)]);
    let [low, high] = range([0, ...known]);
    if (isShare) [low, high] = [Math.max(-100, low), Math.min(100, high)];
    const x = (v) => left + ((Math.min(high, Math.max(low, v)) - low) / (high - low)) * (width - left - right);
    const parts = ticks(low, high, width < 560 ? 4 : 8).flatMap((tick) => [s("line", { class: tick === 0 ? "zero" : "grid", x1: x(tick), x2: x(tick), y1: 4, y2: height - 36 }), text(x(tick), height - 21, String(tick), { class: "tick", "text-anchor": "middle" })]);
    findings.forEach((f, i) => {
      const y = i * row + 32, by = scaled(f, "by"), wanted = { higher: [by, high], lower: [low, -by], equal: [-by, by] }[f.expect];
      const words = `${f.says}: ${f.words}`;
      parts.push(s("rect", { class: "wanted", x: x(wanted[0]), y: y - 9, width: Math.max(1, x(wanted[1]) - x(wanted[0])), height: 18 }));
      parts.push(tipped(s("g", { class: `effect ${COLORS[f.verdict]}` }, text(left, y - 14, convscape.charts.clipped(f.says, Math.floor(width / 6.6)), { class: "label" }),
        f.low !== null && s("line", { class: "interval", x1: x(scaled(f, "low")), x2: x(scaled(f, "high")), y1: y, y2: y }), s("circle", { cx: x(scaled(f, "mean")), cy: y, r: 5.5 })), () => [`${f.verdict}: ${words}`]));
    });
    parts.push(text(width / 2, height - 4, isShare ? "difference (points)" : `difference (${unit})`, { class: "axis", "text-anchor": "middle" }));
    return picture(width, height, `what was found and what was expected, in ${unit}`, ...parts);
  }

  convscape.claim = { opening };
})();
