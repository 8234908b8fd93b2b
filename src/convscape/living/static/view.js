"use strict";
/* The network on one screen: a column of tiles for each layer, the links of the map under the
   pointer, and the selection. Maps are painted on one canvas, when numbers change; links and marks
   on another, when the pointer moves. */
(() => {
  const convscape = (window.convscape ??= {});
  const { element, written, short, by, square } = convscape.words;
  const colors = convscape.colors;
  const css = colors.variable;

  let graph, layout, values, state;
  let opening = false; // until the first numbers are there
  let pointed = null; // the unit under the pointer or the keyboard
  let drawn = []; // links
  let limits = []; // of each node: its largest number, which gets the full colour
  const parts = {}; // elements

  function start(room, page) {
    graph = convscape.graph.build(page);
    convscape.graph.current = graph;
    colors.read();
    parts.maps = element("canvas", { "aria-hidden": "true" });
    parts.links = element("canvas", { class: "over", "aria-hidden": "true" });
    parts.heads = element("div", { class: "heads" });
    parts.stage = element("div", { class: "stage" }, parts.maps, parts.links, parts.heads);
    parts.scroller = element("div", { class: "scroller" }, parts.stage);
    parts.lens = element("div", { class: "lens", hidden: "", "aria-hidden": "true" },
      element("canvas"), element("p"));
    room.append(parts.scroller, parts.lens);
    listen(room);
    convscape.state.listen(follow);
    opening = true;
    follow(convscape.state.get(), null);
  }

  function listen(room) {
    new ResizeObserver(() => later(arrange)).observe(room);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      colors.read();
      later(paint);
    });
    const at = event => {
      const box = parts.links.getBoundingClientRect();
      return convscape.layout.hit(layout, event.clientX - box.left, event.clientY - box.top);
    };
    parts.links.addEventListener("pointermove", event => event.pointerType !== "touch" && point(at(event)));
    parts.links.addEventListener("pointerleave", () => point(null));
    parts.links.addEventListener("click", event => {
      const unit = at(event);
      choose(unit);
      point(event.pointerType === "touch" ? null : unit);
    });
  }

  // work that is done once before the next frame, however often it is requested
  const waiting = new Set();
  function later(work) {
    if (waiting.has(work)) return;
    if (!waiting.size)
      requestAnimationFrame(() => {
        const due = [arrange, paint, mark].filter(each => waiting.has(each));
        waiting.clear();
        if (due.includes(arrange)) arrange();
        else if (due.includes(paint)) paint();
        else mark();
      });
    waiting.add(work);
  }

  function follow(next, changed) {
    state = next;
    const numbers = !changed || changed.has("activations");
    if (numbers) {
      values = state.activations ? convscape.graph.valuesOf(state) : null;
      convscape.graph.values = values;
      limits = values ? values.map(colors.limitOf) : [];
    }
    if (values && opening) open();
    later(!layout ? arrange : numbers ? paint : mark);
  }

  // the page opens with a chosen unit: the strongest of the first layer with weights
  function open() {
    opening = false;
    const node = graph.nodes.find(each => each.kind === "conv" || each.kind === "dense");
    // not if its detail would cover the network
    if (!node || state.selection || matchMedia("(max-width: 800px)").matches) return;
    const found = values[node.id];
    const best = found.reduce((most, value, i) => (value > found[most] ? i : most), 0); // NaN does no harm
    const map = Math.floor(best / (node.shape[1] * node.shape[2]));
    choose(convscape.keys.strongest(node, map, found));
  }

  function choose(unit) {
    const selection = unit && { layer: unit.node.id - 1, map: unit.map, row: unit.row, column: unit.column };
    convscape.state.set({ selection });
  }

  function chosen() {
    const unit = state.selection;
    const node = unit && graph.nodes[unit.layer + 1];
    return node ? { node, map: unit.map, row: unit.row, column: unit.column } : null;
  }

  // --- where everything is --------------------------------------------------------------------

  function arrange() {
    const room = parts.scroller;
    const next = convscape.layout.of(graph, room.clientWidth, Math.max(300, room.clientHeight));
    layout = next;
    parts.stage.style.width = `${next.width}px`;
    parts.stage.style.height = `${next.height}px`;
    room.classList.toggle("down", next.isDown);
    for (const canvas of [parts.maps, parts.links]) {
      canvas.width = next.width * devicePixelRatio;
      canvas.height = next.height * devicePixelRatio;
      canvas.style.width = `${next.width}px`;
      canvas.style.height = `${next.height}px`;
      canvas.getContext("2d").setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    }
    const active = document.activeElement?.dataset?.node;
    parts.heads.replaceChildren(...next.columns.flatMap((column, i) => [head(column, next.columns[i - 1]), keys(column)]));
    if (active) parts.heads.querySelector(`[data-node="${active}"]`)?.focus();
    paint();
  }

  const place = (made, { x, y, width, height }) => {
    for (const [key, value] of Object.entries({ left: x, top: y, width, height }))
      if (value !== undefined) made.style[key] = `${value}px`;
    return made;
  };

  const keys = column =>
    place(convscape.keys.list(graph, column, { values: () => values, chosen, point, choose }),
      { x: column.x, y: column.y, width: column.width, height: column.height });

  // "block1" of block1.conv
  const stageOf = ({ name }) => name.slice(0, Math.max(name.lastIndexOf("."), 0)) || name;

  // a layer in words: what it does, what comes out, what it costs, how much a unit sees
  function head({ node, head, shown }, before) {
    const stage = stageOf(node), isNew = !before || stageOf(before.node) !== stage;
    const size = node.isVector ? `${node.shape[0]}` : by(node.shape);
    const lines = [
      node.id ? node.words : "input", size,
      node.parameters ? `${short(node.parameters)} params` : null,
      node.macs ? `${short(node.macs)} MACs` : null,
      node.id ? `sees ${square(node.field.size)}` : null,
    ].filter(line => line !== null);
    const sampled = shown.length < node.shape[0] ? `${shown.length} of ${node.shape[0]} shown` : null;
    const title = [node.name, ...lines.slice(0, 2), `${node.parameters.toLocaleString("en")} parameters`,
      `${node.macs.toLocaleString("en")} MACs`, `a unit sees ${square(node.field.size)} pixels`, sampled].filter(Boolean).join("\n");
    const made = element("div", { class: "head", title, "aria-hidden": "true" },
      element("span", { class: "stage-name" }, isNew && node.id ? stage : "\u00a0"),
      element("b", {}, lines[0]), ...lines.slice(1).map(line => element("span", {}, line)));
    if (sampled) made.append(element("span", {}, sampled));
    return place(made, head);
  }

  // --- numbers ----------------------------------------------------------------------------------

  const atlas = []; // of each node: a canvas with all its maps side by side, one pixel per unit

  function paint() {
    const context = parts.maps.getContext("2d");
    context.clearRect(0, 0, layout.width, layout.height);
    drawWires(context);
    parts.faintLine = css("--line");
    for (const column of layout.columns) drawColumn(context, column);
    mark();
  }

  function drawColumn(context, column) {
    const { node, shown, across, form } = column;
    const [, height, width] = node.shape;
    const down = Math.ceil(shown.length / across);
    context.imageSmoothingEnabled = false;
    if (!values) {
      context.fillStyle = css("--panel");
      for (const map of shown) fill(context, convscape.layout.tile(column, map));
      return;
    }
    if (column.picture || (form === "picture" && node.shape[0] === 1)) {
      const tall = column.picture ? column.picture - column.gap : column.tall;
      const picture = colors.pictured((parts.picture ??= element("canvas")), height, width, pixels =>
        colors.paintPixels(pixels, width, 0, state.pixels, node.shape));
      context.drawImage(picture, column.x, column.y, column.width, tall);
      if (!column.picture) return;
    }
    const picture = colors.pictured((atlas[node.id] ??= element("canvas")), down * height, across * width, pixels =>
      shown.forEach((map, i) => colors.paint(pixels, across * width,
        Math.floor(i / across) * height * across * width + (i % across) * width,
        values[node.id], map * height * width, height, width, limits[node.id])));
    if (form === "classes") return drawClasses(context, column);
    context.strokeStyle = parts.faintLine;
    context.lineWidth = 1;
    shown.forEach((map, i) => {
      const { x, y, width: wide, height: tall } = convscape.layout.tile(column, map);
      context.drawImage(picture, (i % across) * width, Math.floor(i / across) * height, width, height, x, y, wide, tall);
      if (form === "maps") context.strokeRect(x - 0.5, y - 0.5, wide + 1, tall + 1);
    });
  }

  function drawClasses(context, column) {
    const { node, shown } = column, limit = limits[node.id];
    context.font = `${Math.min(12, column.tall - 1)}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (const map of shown) {
      const box = convscape.layout.tile(column, map), side = Math.min(18, box.height);
      context.fillStyle = colors.color(values[node.id][map], limit);
      context.fillRect(box.x, box.y + (box.height - side) / 2, side, side);
      context.fillStyle = css("--ink");
      context.fillText(node.classes[map], box.x + side + 5, box.y + box.height / 2 + 1, box.width - side - 5);
    }
  }

  const fill = (context, { x, y, width, height }) => context.fillRect(x, y, width, height);

  // --- the graph --------------------------------------------------------------------------------

  const middle = column => column.y + column.height / 2;

  // thin lines from each layer to those that read it
  function drawWires(context) {
    context.strokeStyle = css("--line");
    context.lineWidth = 1.5;
    for (const column of layout.columns)
      column.node.sources.forEach((id, branch) => {
        const source = layout.of.get(id);
        const lane = layout.lanes.find(each => each.to === column.node.id && each.from === id &&
          column.node.rows[branch]?.length === 0);
        context.beginPath();
        if (layout.isDown) wireDown(context, source, column);
        else wire(context, source, column, lane);
        context.stroke();
      });
  }
  function wire(context, source, column, lane) {
    const [fromX, fromY, toX, toY] = [source.x + source.width + 3, middle(source), column.x - 3, middle(column)];
    context.moveTo(fromX, fromY);
    if (!lane) return bend(context, fromX, fromY, toX, toY);
    bend(context, fromX, fromY, lane.start, lane.y);
    context.lineTo(lane.end, lane.y);
    bend(context, lane.end, lane.y, toX, toY);
  }
  const bend = (context, x1, y1, x2, y2) => {
    const half = (x1 + x2) / 2;
    context.bezierCurveTo(half, y1, half, y2, x2, y2);
  };
  const wireDown = (context, source, column) => {
    const x = Math.min(source.x, column.x) + 6;
    context.moveTo(x, source.y + source.height + 3);
    context.lineTo(x, column.head.y);
  };

  // --- what is under the pointer and what is selected ---------------------------------------------

  function point(unit) {
    const same = unit && pointed && unit.node === pointed.node && unit.map === pointed.map &&
      unit.row === pointed.row && unit.column === pointed.column;
    if (same || (!unit && !pointed)) return;
    pointed = unit;
    parts.links.style.cursor = unit ? "pointer" : "";
    later(mark);
  }

  // the class that the network predicts
  function answer() {
    if (!graph.last.classes) return null;
    const logits = values[graph.last.id];
    return { node: graph.last, map: logits.indexOf(Math.max(...logits)), row: 0, column: 0 };
  }

  function mark() {
    const context = parts.links.getContext("2d");
    context.clearRect(0, 0, layout.width, layout.height);
    showLens();
    if (!values) return;
    const choice = chosen();
    const units = pointed ? [pointed] : [answer(), choice].filter(Boolean);
    drawn = units.flatMap(unit => convscape.links.behind(graph, values, unit.node, unit.map));
    drawLinks(context, drawn);
    for (const unit of units) outline(context, unit, 1.5);
    if (choice) {
      drawWindow(context, choice);
      outline(context, choice, 2.5);
    }
  }

  function drawLinks(context, links) {
    const largest = new Map(); // the largest weight of each layer
    for (const { to, weight } of links) largest.set(to, Math.max(largest.get(to) ?? 0, Math.abs(weight)));
    const plain = css("--faint");
    for (const { from, map, to, target, weight, strength } of links) {
      const [a, b] = [layout.of.get(from.id), layout.of.get(to.id)];
      const [start, end] = [convscape.layout.tile(a, map), convscape.layout.tile(b, target)];
      context.globalAlpha = 0.12 + 0.78 * strength;
      context.strokeStyle = weight ? css(weight > 0 ? "--positive" : "--negative") : plain;
      context.lineWidth = weight ? 0.6 + 1.8 * strength : 1;
      context.beginPath();
      if (layout.isDown) {
        const [x1, y1, x2, y2] = [start.x + start.width / 2, start.y + start.height, end.x + end.width / 2, end.y];
        context.moveTo(x1, y1);
        context.bezierCurveTo(x1, (y1 + y2) / 2, x2, (y1 + y2) / 2, x2, y2);
      } else {
        const [x1, y1, x2, y2] = [start.x + start.width, start.y + start.height / 2, end.x, end.y + end.height / 2];
        context.moveTo(x1, y1);
        bend(context, x1, y1, x2, y2);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  function outline(context, { node, map, row, column }, width) {
    const box = convscape.layout.tile(layout.of.get(node.id), map);
    context.strokeStyle = css("--accent");
    context.lineWidth = width;
    context.strokeRect(box.x - 1, box.y - 1, box.width + 2, box.height + 2);
    if (node.isVector || width < 2) return;
    frame(context, node, map, { top: row, left: column, height: 1, width: 1 }, 2);
  }

  // a window on a map, clipped to it
  function frame(context, node, map, { top, left, height, width }, line) {
    const box = convscape.layout.tile(layout.of.get(node.id), map);
    const [tall, wide] = [box.height / node.shape[1], box.width / node.shape[2]];
    const [y, x] = [Math.max(0, top), Math.max(0, left)];
    const [bottom, right] = [Math.min(node.shape[1], top + height), Math.min(node.shape[2], left + width)];
    if (bottom <= y || right <= x) return;
    context.lineWidth = line;
    context.strokeStyle = css("--accent");
    context.strokeRect(box.x + x * wide, box.y + y * tall, Math.max(2, (right - x) * wide), Math.max(2, (bottom - y) * tall));
  }

  // what a unit reads from the maps before it, and what it sees of the image
  function drawWindow(context, { node, map, row, column }) {
    if (!node.id) return;
    const { windowOf, fieldOf } = convscape.steps;
    for (const link of convscape.links.behind(graph, values, node, map))
      if (link.to === node && !link.from.isVector && node.kind !== "flatten")
        frame(context, link.from, link.map, windowOf(graph, node, row, column), 1);
    if (graph.input.isVector) return;
    const seen = fieldOf(node, row, column);
    for (let c = 0; c < graph.input.shape[0]; c++) frame(context, graph.input, c, seen, 1.5);
  }

  // an enlarged map beside the pointer
  function showLens() {
    const unit = pointed;
    parts.lens.hidden = !unit || !values;
    if (parts.lens.hidden) return;
    const { node, map, row, column } = unit;
    const [, height, width] = node.shape;
    const [canvas, words] = parts.lens.children;
    canvas.hidden = node.isVector;
    if (!node.isVector)
      colors.pictured(canvas, height, width, pixels => node.id === 0 && (node.shape[0] === 1)
        ? colors.paintPixels(pixels, width, 0, state.pixels, node.shape)
        : colors.paint(pixels, width, 0, values[node.id], map * height * width, height, width, limits[node.id]));
    const value = values[node.id][(map * height + row) * width + column];
    words.textContent = `${node.name}, ${convscape.graph.unitName(graph, unit)}: ${written(value)}`;
    const box = convscape.layout.tile(layout.of.get(node.id), map);
    const [room, inside] = [parts.lens.parentElement.getBoundingClientRect(), parts.links.getBoundingClientRect()];
    const left = box.x + inside.left - room.left, top = box.y + inside.top - room.top;
    const wide = parts.lens.offsetWidth, tall = parts.lens.offsetHeight;
    parts.lens.style.left = `${left + box.width + 14 + wide < room.width ? left + box.width + 14 : Math.max(0, left - wide - 14)}px`;
    parts.lens.style.top = `${Math.max(0, Math.min(room.height - tall, top + box.height / 2 - tall / 2))}px`;
  }

  convscape.view = { start, choose, chosen, layout: () => layout, links: () => drawn };
})();
