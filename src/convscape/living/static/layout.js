"use strict";
/* Where everything is: a column for each layer from left to right, or on a narrow page a band for
   each from top to bottom; the branches of a residual layer are above each other. A pure function
   of the network and the available room, in pixels. */
(() => {
  const convscape = (window.convscape ??= {});
  const HEAD = 88; // the words above a column
  const GAP = 2; // between two tiles
  const BETWEEN = 18; // the smallest gap between two columns: links are drawn there
  const NARROWEST = 54; // the narrowest column that holds its words
  const [SMALLEST, LARGEST] = [16, 64]; // tile
  const EDGE = 4; // room for the frame of the last column
  const CELL = 14; // the largest cell of a vector
  const STRIP = 36; // the width of a vector
  const CLASS = 68; // the width of a class with its name
  const PICTURE = 80; // the width of the image
  const MOST_MAPS = 256, MOST_CELLS = 4096; // of a layer; with more, they are sampled evenly
  const MOST_ROWS = 20; // classes with their names

  // which maps of a layer are shown
  function shownOf(node) {
    const count = node.shape[0], most = node.isVector ? MOST_CELLS : MOST_MAPS;
    const shown = Math.min(count, most);
    return Array.from({ length: shown }, (_, i) =>
      count === shown ? i : Math.round((i * (count - 1)) / (shown - 1)));
  }

  const formOf = node =>
    node.id === 0 && !node.isVector ? "picture"
    : node.classes && node.classes.length <= MOST_ROWS ? "classes"
    : node.isVector ? "cells" : "maps";

  // tiles in a space `height` high: their size, how many side by side, what they fill
  function pack(node, size, height) {
    const form = formOf(node), count = shownOf(node).length;
    const [channels, h, w] = node.shape, longest = Math.max(h, w);
    const grid = (tall, wide, gap) => {
      const deep = Math.max(1, Math.floor((height + gap) / (tall + gap)));
      const across = Math.ceil(count / deep);
      const down = Math.ceil(count / across);
      return { form, tall, wide, gap, across, count, width: across * (wide + gap) - gap, height: down * (tall + gap) - gap };
    };
    if (form === "picture") {
      const wide = Math.min(PICTURE, (height * w) / h), tall = (wide * h) / w;
      if (channels === 1) return { ...grid(tall, wide, GAP), picture: 0 };
      const small = (wide - (channels - 1) * GAP) / channels, low = (small * h) / w;
      return { form, tall: low, wide: small, gap: GAP, across: channels, count, width: wide, picture: tall + GAP, height: tall + GAP + low };
    }
    if (form === "classes") {
      const tall = Math.max(10, Math.min(26, (height - (count - 1) * GAP) / count));
      return grid(tall, CLASS, GAP);
    }
    if (form === "cells") {
      let cell = CELL;
      const fits = () => { const gap = cell > 6 ? 2 : cell > 3 ? 1 : 0; return grid(cell, cell, gap); };
      while (cell > 2 && (fits().width > STRIP || fits().height > height)) cell--;
      return fits();
    }
    return grid((size * h) / longest, (size * w) / longest, GAP);
  }

  // height of each branch of a residual layer: the first gets most, an empty one gets a lane
  function shares(rows, height) {
    const lanes = rows.map((row, i) => (row.length ? (i === 0 ? 2 : 1) : 0));
    const total = lanes.reduce((a, b) => a + b, 0) || 1;
    const rest = height - 16 * lanes.filter(share => !share).length;
    return lanes.map(share => (share ? (share / total) * rest : 16));
  }

  function widthOf(row, size, height, between) {
    let width = 0;
    for (const node of row) {
      const room = height - HEAD;
      if (node.rows.length) {
        const parts = shares(node.rows, height);
        width += Math.max(...node.rows.map((each, i) => (each.length ? widthOf(each, size, parts[i], between) + between : 0)));
      }
      width += Math.max(NARROWEST, pack(node, size, room).width) + between;
    }
    return width - between;
  }

  // gaps between columns on the longest path through the network
  const gapsIn = row =>
    row.reduce((sum, node) => sum + 1 + Math.max(0, ...node.rows.map(each => (each.length ? gapsIn(each) + 1 : 0))), -1);

  function sideways(graph, width, height) {
    let size = LARGEST;
    while (size > SMALLEST && widthOf(graph.row, size, height, BETWEEN) > width) size--;
    const used = widthOf(graph.row, size, height, BETWEEN);
    const between = BETWEEN + Math.max(0, Math.min(110, (width - used) / Math.max(1, gapsIn(graph.row))));
    const columns = [], lanes = [];
    const put = (row, x, top, room) => {
      for (const node of row) {
        if (node.rows.length) {
          let y = top, widest = 0;
          const from = x;
          const parts = shares(node.rows, room);
          node.rows.forEach((each, i) => {
            if (each.length) widest = Math.max(widest, put(each, from, y, parts[i]) - from);
            else lanes.push({ to: node.id, from: node.sources[i], y: y + 8, start: from, end: null });
            y += parts[i];
          });
          x = from + widest;
          for (const lane of lanes) if (lane.to === node.id) lane.end = x - between;
        }
        const packed = pack(node, size, room - HEAD);
        const wide = Math.max(NARROWEST, packed.width);
        columns.push({
          node, ...packed, shown: shownOf(node),
          head: { x, y: top, width: wide + (node === graph.last ? 0 : between - 4) },
          x, // under its words
          y: top + HEAD + Math.max(0, (room - HEAD - packed.height) / 2),
        });
        x += wide + between;
      }
      return x;
    };
    const end = put(graph.row, 0, 0, height) - between;
    return finished(columns, lanes, false, end + EDGE, height);
  }

  function downwards(graph, width) {
    const columns = [];
    let y = 0;
    const put = (row, depth) => {
      for (const node of row) {
        node.rows.forEach(each => put(each, depth + 1));
        const left = 10 * depth;
        const form = formOf(node), count = shownOf(node).length;
        const [channels, h, w] = node.shape;
        const cell = form === "cells" ? (count > 600 ? 5 : count > 100 ? 8 : CELL) : 0;
        const size = form === "cells" ? cell : Math.min(44, (width - left) / 6);
        const wide = form === "cells" ? cell : form === "classes" ? (width - left - 4 * GAP) / 5 : (size * w) / Math.max(h, w);
        const tall = form === "cells" ? cell : form === "classes" ? 24 : (size * h) / Math.max(h, w);
        const gap = form === "cells" ? 1 : GAP;
        let packed;
        if (form === "picture") packed = pack(node, size, PICTURE * 1.5);
        else {
          const across = Math.min(count, Math.max(1, Math.floor((width - left + gap) / (wide + gap))));
          const down = Math.ceil(count / across);
          packed = { form, tall, wide, gap, across, count, width: across * (wide + gap) - gap, height: down * (tall + gap) - gap };
        }
        columns.push({ node, ...packed, shown: shownOf(node), head: { x: left, y, width: width - left }, x: left, y: y + 22 });
        y += 22 + packed.height + 20;
      }
    };
    put(graph.row, 0);
    return finished(columns, [], true, width, y - 12);
  }

  function finished(columns, lanes, isDown, width, height) {
    const of = new Map(columns.map(column => [column.node.id, column]));
    for (const column of columns) {
      // where a map is shown, or the nearest shown one
      const { shown, node } = column;
      column.placeOf = map =>
        shown.length === node.shape[0] ? map : Math.round((map * (shown.length - 1)) / (node.shape[0] - 1));
    }
    return { columns, of, lanes, isDown, width, height };
  }

  // the rectangle of a map
  function tile(column, map) {
    const place = column.placeOf(map);
    return {
      x: column.x + (place % column.across) * (column.wide + column.gap),
      y: column.y + (column.picture ?? 0) + Math.floor(place / column.across) * (column.tall + column.gap),
      width: column.wide,
      height: column.tall,
    };
  }

  // the map and unit under a point, or null
  function hit(layout, x, y) {
    for (const column of layout.columns) {
      const { node } = column;
      const left = x - column.x, top = y - column.y - (column.picture ?? 0);
      if (left < 0 || left >= column.width) continue;
      if (column.picture && top < 0 && top > -column.picture) // the picture above its channels
        return unit(node, 0, (top + column.picture) / (column.picture - column.gap), left / column.width);
      if (top < 0 || top >= column.height) continue;
      const along = Math.floor(left / (column.wide + column.gap));
      const down = Math.floor(top / (column.tall + column.gap));
      const place = down * column.across + along;
      if (along >= column.across || place >= column.count) continue;
      return unit(node, column.shown[place], (top - down * (column.tall + column.gap)) / column.tall,
        (left - along * (column.wide + column.gap)) / column.wide);
    }
    return null;
  }
  const unit = (node, map, down, along) => ({
    node, map,
    row: Math.min(node.shape[1] - 1, Math.max(0, Math.floor(down * node.shape[1]))),
    column: Math.min(node.shape[2] - 1, Math.max(0, Math.floor(along * node.shape[2]))),
  });

  convscape.layout = {
    of: (graph, width, height) => (width < 560 ? downwards(graph, width) : sideways(graph, width - EDGE, height)),
    tile, hit,
  };
})();
