"use strict";
/* The network's input: convscape.inputs.start(root, document). Thumbnails, pad, sliders, play. */
(() => {
  const { engine, fit, change } = convscape;
  const STEP_MS = 110; // of a slider that plays by itself

  /** The page's test images: [{pixels, label, predicted, place}]. */
  function testImages({ input, images }) {
    const size = input[0] * input[1] * input[2], all = engine.bytes(images.pixels);
    return images.labels.map((label, i) => ({
      pixels: all.subarray(i * size, (i + 1) * size),
      label, predicted: images.predicted[i], place: images.places[i],
    }));
  }

  /** Pixels (C x H x W) on a canvas of H x W; unless there are three channels, the first is shown. */
  function show(canvas, pixels, [channels, height, width]) {
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height);
    const count = height * width;
    for (let at = 0; at < count; at++) {
      for (let c = 0; c < 3; c++) image.data[4 * at + c] = pixels[(channels === 3 ? c : 0) * count + at];
      image.data[4 * at + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function start(root, found) {
    const { make } = convscape.pad;
    const { input: shape, fitting: facts } = found;
    const sliders = change.sliders(shape);
    const values = Object.fromEntries(sliders.map(({ key, neutral }) => [key, neutral]));
    // before the sliders, in an image's order: from a thumbnail, the pad or the caller
    let base = { pixels: null, label: null, name: "" };
    let sent = null; // the pixels that this file set last

    function apply() {
      const { pixels, label, name } = base;
      const seen = pixels && change.apply(pixels, shape, values, facts);
      sent = seen && fit.permuted(seen, facts);
      convscape.state.set({ pixels: sent, label, name });
    }

    function take(pixels, label, name) {
      base = { pixels, label, name };
      apply();
    }

    const given = givenCanvas(shape, (x, y) => {
      if (!values.square) values.square = Math.ceil(Math.min(shape[1], shape[2]) / 4);
      [values.squareAcross, values.squareDown] = [x, y];
      controls.refresh();
      apply();
    });
    const pad = facts.pictures ? drawing(facts, take) : null;
    const choose = (image) => {
      pad?.leave();
      take(fit.unpermuted(image.pixels, facts), image.label, `test image ${image.place}`);
    };
    const controls = sliderRows(sliders, values, apply, given.curve, () => base);
    const beside = make("div", { className: "beside" });
    if (pad) beside.append(make("figure", {}, pad.canvas, make("figcaption", { textContent: "drawn or dropped" })));
    beside.append(make("figure", {}, given.canvas, make("figcaption", { textContent: "the network's input" })));
    root.append(beside, ...(pad ? pad.parts : []), given.note);
    root.append(thumbnails(testImages(found), found, choose), controls.element);

    convscape.state.listen((state, changed) => {
      if (!changed.has("pixels")) return;
      if (state.pixels !== sent) {
        // set by another part of the page: now it is the base
        controls.reset(false);
        pad?.leave();
        sent = state.pixels;
        const pixels = sent && fit.unpermuted(sent, facts);
        base = { pixels, label: state.label, name: state.name };
      }
      given.show(state, base);
    });
  }

  /** The image as the network gets it; a grey square can be dragged over it. */
  function givenCanvas(shape, cover) {
    const { make } = convscape.pad;
    const canvas = make("canvas", { className: "given" });
    canvas.setAttribute("role", "img");
    const note = make("p", { className: "hint" });
    note.setAttribute("role", "status");
    const curve = make("figure", { className: "curve", hidden: true });
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      const at = (value, low, size, count) => Math.round(((value - low) / size) * count);
      cover(at(event.clientX, box.left, box.width, shape[2]), at(event.clientY, box.top, box.height, shape[1]));
    };
    canvas.title = "drag to hide a part behind a grey square";
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      place(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) place(event);
    });
    return {
      canvas, note, curve,
      show(state, base) {
        const nothing = new Uint8Array(shape[0] * shape[1] * shape[2]);
        show(canvas, state.pixels ?? nothing, shape);
        canvas.classList.toggle("empty", state.pixels === null);
        const label = state.label === null ? "" : `, of class ${convscape.classes[state.label]}`;
        canvas.setAttribute("aria-label", state.pixels ? `the network's input: ${state.name}${label}` : "the network has no input");
        note.textContent = state.pixels === null
          ? "Nothing is drawn, so there is no answer."
          : `${base.name}${state.label === null ? "" : `: ${convscape.classes[state.label]}`}`;
      },
    };
  }

  /** The pad with its switches; what is on it becomes the base image. */
  function drawing(facts, take) {
    const { make } = convscape.pad;
    const isInk = facts.kind !== "plain";
    let swap = null; // as detected
    let [isWaiting, isOn] = [false, false];
    function read() {
      isWaiting = false;
      if (!isOn) return;
      const picture = pad.picture();
      const found = picture && fit.given(picture, facts, swap, isInk ? fitted.checked : true);
      if (swap === null) swapped.checked = found?.isSwapped ?? false;
      take(found ? found.pixels : null, null, found ? found.words.join(", ") : "");
    }
    function changed() {
      isOn = true;
      if (isWaiting) return;
      isWaiting = true;
      requestAnimationFrame(read);
    }
    const pad = convscape.pad.build(facts, () => {
      if (!pad.drawn()) swap = null;
      changed();
    });
    const check = (text, title, isChecked) => {
      const box = make("input", { type: "checkbox", checked: isChecked });
      box.addEventListener("change", changed);
      return [box, make("label", { title }, box, ` ${text}`)];
    };
    const [swapped, swapLabel] = check("dark and light swapped", "detected from the background; change it if that is wrong", false);
    swapped.addEventListener("change", () => (swap = swapped.checked));
    const [fitted, fitLabel] = check("fitted like the training data", `${facts.words}; without it the drawing is only scaled down`, true);
    const switches = make("div", { className: "tools" }, swapLabel, ...(isInk ? [fitLabel] : []));
    return {
      canvas: pad.canvas,
      parts: [pad.tools, switches, pad.message],
      leave() {
        [isOn, swap] = [false, null];
        pad.wipe();
      },
    };
  }

  /** A row of test images for each class, starting with those that the network gets wrong. */
  function thumbnails(images, { input: shape, fitting: facts }, choose) {
    const { make } = convscape.pad;
    const grid = make("div", { className: "thumbnails" });
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", "test images, mistakes first; move with the arrow keys");
    const rows = new Map(), buttons = [];
    function say(button, { label, place }, predicted) {
      const isWrong = label !== predicted;
      const taken = isWrong ? `, taken for ${convscape.classes[predicted]}` : "";
      button.title = `test image ${place}: ${convscape.classes[label]}${taken}`;
      button.setAttribute("aria-label", button.title);
      button.classList.toggle("wrong", isWrong);
    }
    convscape.state.listen(({ score }, changed) => {
      if (changed.has("score") && score) buttons.forEach((button, i) => say(button, images[i], score.predicted[i]));
    });
    for (const image of images) {
      const name = convscape.classes[image.label];
      if (!rows.has(image.label)) {
        const row = make("div", {}, make("span", { textContent: name, title: name }));
        rows.set(image.label, grid.appendChild(row));
      }
      const canvas = make("canvas");
      show(canvas, fit.unpermuted(image.pixels, facts), shape);
      const button = make("button", { type: "button", tabIndex: -1 }, canvas);
      buttons.push(button);
      say(button, image, image.predicted);
      button.addEventListener("click", () => {
        focus(button, false);
        choose(image);
      });
      rows.get(image.label).append(button);
    }
    const table = [...rows.values()].map((row) => [...row.querySelectorAll("button")]);
    function focus(button, isMoved) {
      for (const other of table.flat()) other.tabIndex = other === button ? 0 : -1;
      if (isMoved) button.focus();
    }
    if (table.length) focus(table[0][0], false);
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    grid.addEventListener("keydown", (event) => {
      const row = table.findIndex((buttons) => buttons.includes(event.target));
      if (!(event.key in moves) || row < 0) return;
      event.preventDefault();
      const [down, across] = moves[event.key];
      const next = table[Math.min(table.length - 1, Math.max(0, row + down))];
      const column = table[row].indexOf(event.target) + across;
      focus(next[Math.min(next.length - 1, Math.max(0, column))], true);
    });
    return grid;
  }

  /** The sliders, each with a button that plays it from end to end and draws the curves. */
  function sliderRows(sliders, values, apply, figure, base) {
    const { make } = convscape.pad;
    const element = make("div", { className: "sliders" });
    const rows = {};
    let player = null;
    const shown = (value, unit) => `${Number(value.toFixed(2))} ${unit}`;

    function refresh() {
      for (const { key, unit } of sliders) {
        rows[key].range.value = values[key];
        rows[key].output.textContent = shown(values[key], unit);
      }
    }
    function stop() {
      if (player === null) return;
      clearTimeout(player.timer);
      values[player.slider.key] = player.before;
      rows[player.slider.key].button.textContent = "▶";
      player = null;
      refresh();
      apply();
    }
    function reset(isApplied = true) {
      stop();
      for (const { key, neutral } of sliders) values[key] = neutral;
      refresh();
      if (isApplied) apply();
    }
    function play(slider) {
      const isRunning = player?.slider === slider;
      stop();
      if (isRunning || base().pixels === null) return;
      const { key, low, high, step } = slider;
      const points = [];
      player = { slider, before: values[key], timer: 0 };
      const count = Math.min(60, Math.round((high - low) / step));
      const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
      rows[key].button.textContent = "■";
      const tick = () => {
        const place = points.length;
        if (place > count) return stop();
        values[key] = Number((low + ((high - low) * place) / count).toFixed(4));
        if (step === 1) values[key] = Math.round(values[key]);
        refresh();
        apply();
        convscape.state.flush();
        if (convscape.state.get().probabilities === null) return stop();
        points.push({ value: values[key], probabilities: [...convscape.state.get().probabilities] });
        convscape.curves.draw(figure, slider, points);
        if (isStill) tick();
        else player.timer = setTimeout(tick, STEP_MS);
      };
      tick();
    }

    for (const slider of sliders) {
      const { key, name, unit, low, high, step } = slider;
      const range = make("input", { type: "range", min: low, max: high, step });
      const output = make("output");
      const button = make("button", { type: "button", textContent: "▶", title: `play: ${name} from end to end` });
      button.setAttribute("aria-label", `play ${name}`);
      range.setAttribute("aria-label", `${name}, ${unit}`);
      range.dataset.key = key;
      range.addEventListener("input", () => {
        const value = Number(range.value);
        stop();
        values[key] = value;
        refresh();
        apply();
      });
      button.addEventListener("click", () => play(slider));
      rows[key] = { range, output, button };
      element.append(make("label", { textContent: name }), range, output, button);
    }
    refresh();
    const first = make("button", { type: "button", className: "play", textContent: "▶ Play: move it across" });
    first.addEventListener("click", () => play(sliders[0]));
    const back = make("button", { type: "button", textContent: "Reset", onclick: () => reset() });
    return {
      element: make("div", { className: "changes" }, make("div", { className: "tools" }, first, back), figure, element),
      refresh, reset,
    };
  }

  convscape.inputs = { start, testImages, show };
})();
