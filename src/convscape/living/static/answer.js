"use strict";
/* The network's answer: a bar for each class, how sure it is, and softmax on demand. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written } = convscape.words;
  const MOST = 12; // bars; with more classes the likeliest are shown

  const percent = p => (p >= 0.9995 && p < 1 ? "> 99.9 %" : p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
  let page, rows, parts;

  function start(room, document_) {
    page = document_;
    parts = {
      words: element("p", { class: "verdict" }), truth: element("p", { class: "truth" }),
      unlike: element("p", { class: "unlike" }), sure: element("p", { class: "sure" }),
      bars: element("ol", { class: "classes" }), formula: element("div"),
    };
    const softmax = element("details", { class: "softmax" }, element("summary", {}, "softmax"), parts.formula);
    softmax.addEventListener("toggle", () => show(convscape.state.get()));
    parts.softmax = softmax;
    room.append(element("h2", {}, "The answer"), parts.words, parts.truth, parts.unlike, parts.sure, parts.bars, softmax);
    rows = Array.from({ length: Math.min(MOST, page.classes.length) }, bar);
    parts.bars.append(...rows.map(row => row.element));
    convscape.state.listen((state, changed) => {
      if (changed.has("activations") || changed.has("label") || changed.has("selection")) show(state);
    });
  }

  // a class: its name, bar and probability; a click opens what its number is made of
  function bar() {
    const [name, fill, number] = [element("span", { class: "name" }), element("i"), element("span", { class: "number" })];
    const button = element("button", { type: "button" }, name, element("span", { class: "track" }, fill), number);
    const made = { element: element("li", {}, button), name, fill, number, button, index: 0 };
    button.addEventListener("click", () =>
      convscape.state.set({ selection: { layer: convscape.network.last, map: made.index, row: 0, column: 0 } }));
    return made;
  }

  function show(state) {
    const p = state.probabilities;
    parts.bars.hidden = parts.softmax.hidden = !p;
    parts.truth.textContent = parts.unlike.textContent = parts.sure.textContent = "";
    if (!p) {
      parts.words.textContent = "No input, no answer.";
      return;
    }
    const best = p.indexOf(Math.max(...p));
    parts.words.replaceChildren(element("b", {}, page.classes[best]), ` ${percent(p[best])}`);
    if (state.label !== null)
      parts.truth.textContent = state.label === best ? "right" : `wrong: it is ${page.classes[state.label]}`;
    parts.truth.classList.toggle("wrong", state.label !== null && state.label !== best);
    const said = convscape.unlike.words(state);
    [parts.unlike.textContent, parts.sure.textContent] = [said.unlike, said.sure];
    const shown = p.length <= MOST ? [...p.keys()]
      : [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, MOST);
    shown.forEach((index, i) => {
      const row = rows[i];
      row.index = index;
      row.name.textContent = page.classes[index];
      row.fill.style.transform = `scaleX(${p[index]})`;
      row.number.textContent = percent(p[index]);
      row.button.title = `logit ${state.logits[index]}\nprobability ${p[index]}`;
      row.button.dataset.value = p[index];
      row.element.classList.toggle("best", index === best);
      row.element.classList.toggle("true", index === state.label);
    });
    if (parts.softmax.open) showFormula(state, shown);
  }

  // e to the number of each class, over their sum; the largest is subtracted first against overflow
  function showFormula({ logits, probabilities }, shown) {
    const largest = Math.max(...logits);
    const powers = Array.from(logits, z => Math.exp(z - largest));
    const total = powers.reduce((a, b) => a + b, 0);
    const cell = value => element("td", { title: value, "data-value": value }, written(value));
    parts.formula.replaceChildren(
      element("p", {}, "p = e", element("sup", {}, "z − m"), " / Σ e", element("sup", {}, "z − m"), `, m = ${written(largest)} the largest z`),
      element("table", {},
        element("thead", {}, element("tr", {}, ...["class", "z", "e", "p"].map((words, i) =>
          element("th", { scope: "col" }, words, ...(i === 2 ? [element("sup", {}, "z − m")] : []))))),
        element("tbody", {}, ...shown.map(i =>
          element("tr", {}, element("th", { scope: "row" }, page.classes[i]), cell(logits[i]), cell(powers[i]), cell(probabilities[i])))),
        element("tfoot", {}, element("tr", {}, element("th", { scope: "row" }, "sum"), element("td"), cell(total), cell(1)))));
  }

  convscape.answer = { start };
})();
