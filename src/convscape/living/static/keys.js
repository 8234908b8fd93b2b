"use strict";
/* The network by keyboard and in words: Tab reaches the list of each layer, arrow keys go through
   its maps, Enter opens one. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written, by } = convscape.words;

  // the unit of a map with the largest distance from zero
  function strongest(node, map, values) {
    const [, height, width] = node.shape, from = map * height * width;
    let best = 0;
    for (let i = 1; i < height * width; i++)
      if (Math.abs(values[from + i]) > Math.abs(values[from + best])) best = i;
    return { node, map, row: Math.floor(best / width), column: best % width, value: values[from + best] };
  }

  function words(graph, unit, values) {
    const name = convscape.graph.mapName(graph, unit.node, unit.map);
    if (!values) return name;
    const { row, column, value } = strongest(unit.node, unit.map, values[unit.node.id]);
    return unit.node.isVector ? `${name}: ${written(value)}`
      : `${name}: strongest ${written(value)} at row ${row + 1}, column ${column + 1}`;
  }

  // where the list of a layer is entered: at its selected map, otherwise at the first
  function list(graph, column, { values, chosen, point, choose }) {
    const { node, shown, across } = column;
    const id = `map-of-${node.id}`;
    const size = node.isVector ? `${node.shape[0]} numbers` : `${node.shape[0]} maps of ${by(node.shape.slice(1))}`;
    const made = element("div", {
      class: "keys", role: "listbox", tabindex: 0, "data-node": node.id, "aria-activedescendant": id,
      "aria-label": `${node.name}: ${node.words}, ${size}. Arrow keys choose, Enter opens`,
    });
    const option = made.appendChild(element("span", { role: "option", id, "aria-setsize": shown.length }));
    let place = 0;
    const show = () => {
      const unit = { node, map: shown[place], row: 0, column: 0 };
      option.setAttribute("aria-posinset", place + 1);
      option.setAttribute("aria-selected", chosen()?.node === node && chosen().map === unit.map);
      option.textContent = words(graph, unit, values());
      const found = values() ? strongest(node, unit.map, values()[node.id]) : unit;
      point(found);
      return found;
    };
    made.addEventListener("focus", () => {
      if (chosen()?.node === node) place = column.placeOf(chosen().map);
      if (made.matches(":focus-visible")) show();
    });
    made.addEventListener("blur", () => point(null));
    made.addEventListener("keydown", event => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -Infinity, End: Infinity };
      if (event.key in steps) {
        const next = Math.min(shown.length - 1, Math.max(0, place + steps[event.key]));
        place = next;
        show();
      } else if (event.key === "Enter" || event.key === " ") choose(show());
      else if (event.key === "Escape") choose(null);
      else return;
      event.preventDefault();
    });
    return made;
  }

  convscape.keys = { list, strongest };
})();
