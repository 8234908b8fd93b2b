// Elements, numbers and texts. Names of a stranger's run are text: nothing here parses HTML.
"use strict";
(() => {
  const convscape = (globalThis.convscape ??= {});
  const SVG = "http://www.w3.org/2000/svg";

  function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.entries(value).forEach(([k, v]) => element.style.setProperty(k, v));
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

  const grouped = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  function number(value, metric) {
    if (value === null || value === undefined) return "";
    return (value * metric.scale).toFixed(metric.digits);
  }
  function amount(value, digits) {
    if (value === null || value === undefined) return "";
    if (digits !== null && digits !== undefined) return value.toFixed(digits);
    const size = Math.abs(value);
    if (size >= 1000 || (Number.isInteger(value) && size < 1e6)) return grouped(value);
    return String(Number(value.toPrecision(4)));
  }
  function brief(value) {
    for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
    return String(Number(value.toPrecision(3)));
  }
  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }
  const counted = (n, one, more) => `${grouped(n)} ${n === 1 ? one : more ?? one + "s"}`;

  function save(name, type, text) {
    const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = h("textarea", { class: "aside" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  let tip = null;
  function showTip(event, lines) {
    tip ??= document.body.appendChild(h("div", { class: "tip", role: "status" }));
    tip.replaceChildren(...lines.filter(Boolean).map((line) => h("div", {}, line)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 12, innerWidth - box.width - 8);
    const y = event.clientY + 14 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 14;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  }
  function hideTip() {
    if (tip) tip.hidden = true;
  }
  function tipped(element, lines) {
    element.addEventListener("pointermove", (event) => showTip(event, lines()));
    element.addEventListener("pointerleave", hideTip);
    return element;
  }

  convscape.dom = { h, s, number, amount, brief, duration, counted, grouped, save, copy, tipped, hideTip };
})();
