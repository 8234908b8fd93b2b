"use strict";
/* A pad to draw on, and pictures to drop, paste or choose: convscape.pad.build(facts, changed).

`changed()` is called when the contents of the pad change; `picture()` gives it as {width, height, rgba},
null where there is nothing. */
(() => {
  const SIDE = 280; // pixels of the drawing
  const MOST_SIDE = 1500; // of a picture: larger ones are scaled down first
  const MOST_BYTES = 50_000_000; // of a file
  const READ = { willReadFrequently: true };
  const STEP = 10; // pixels by which an arrow key moves the pen
  const COLOURS = ["#000000", "#ffffff", "#d62728", "#ff7f0e", "#f2d024", "#2ca02c", "#1f77b4", "#8c564b"];

  const make = (tag, values = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), values);
    element.append(...children);
    return element;
  };

  function draw(context, strokes, colourOf) {
    for (const { points, width, colour } of strokes) {
      context.strokeStyle = context.fillStyle = colourOf(colour);
      context.lineWidth = width;
      context.lineCap = context.lineJoin = "round";
      context.beginPath();
      if (points.length === 1) {
        context.arc(...points[0], width / 2, 0, 2 * Math.PI);
        context.fill();
      } else {
        context.moveTo(...points[0]);
        for (const point of points.slice(1)) context.lineTo(...point);
        context.stroke();
      }
    }
  }

  function build(facts, changed) {
    const [, baseHeight, baseWidth] = facts.base;
    const isInk = facts.kind !== "plain"; // the place of the ink counts, not its colour
    const height = isInk ? SIDE : Math.round((SIDE * baseHeight) / Math.max(baseHeight, baseWidth));
    const width = isInk ? SIDE : Math.round((SIDE * baseWidth) / Math.max(baseHeight, baseWidth));
    const [ground] = facts.ground;
    const paper = isInk || ground > 127 ? "#ffffff" : "#000000";
    const ink = paper === "#ffffff" ? "#000000" : "#ffffff";
    const canvas = make("canvas", { width, height, className: "pad", tabIndex: 0 });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "pad: draw with the mouse, a finger or a pen; or move with the arrow keys, and lower or raise the pen with the space bar");
    const sheet = make("canvas", { width, height });
    const thickness = make("input", { type: "range", min: 2, max: 40, value: 18 });
    const colour = make("input", { type: "color", value: ink });
    const drawn = () => image !== null || strokes.length > 0;
    const message = make("p", { className: "hint" });
    message.setAttribute("role", "alert");
    let [strokes, image, pen] = [[], null, null];

    function paint() {
      const style = getComputedStyle(canvas);
      const context = canvas.getContext("2d");
      context.fillStyle = isInk ? style.backgroundColor : paper;
      context.fillRect(0, 0, width, height);
      if (image !== null) {
        const scale = Math.min(width / image.width, height / image.height);
        const [w, h] = [image.width * scale, image.height * scale];
        context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
      }
      draw(context, strokes, (own) => (isInk ? style.color : own));
      if (pen !== null) {
        context.strokeStyle = pen.isDown ? "#d62728" : "#7f7f7f";
        context.lineWidth = 2;
        context.beginPath();
        context.arc(...pen.at, Number(thickness.value) / 2 + 3, 0, 2 * Math.PI);
        context.stroke();
      }
    }

    function update() {
      paint();
      undo.disabled = !drawn();
      changed();
    }

    function clear() {
      [strokes, image] = [[], null];
      message.textContent = "";
      update();
    }

    function takeBack() {
      if (strokes.length) strokes.pop();
      else image = null;
      update();
    }

    function begin(point) {
      if (image !== null) image = null;
      strokes.push({ points: [point], width: Number(thickness.value), colour: colour.value });
    }

    const extend = (point) => strokes[strokes.length - 1].points.push(point);

    // mouse, finger and pen
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
    };
    let pointer = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (pointer !== null || event.button > 0) return;
      event.preventDefault();
      canvas.focus();
      pointer = event.pointerId;
      pen = null;
      canvas.setPointerCapture(pointer);
      begin(place(event));
      update();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== pointer) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) extend(place(one));
      update();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        if (event.pointerId === pointer) pointer = null;
      });
    }

    // keys
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    canvas.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "z") {
        event.preventDefault();
        takeBack();
        return;
      }
      if (event.key === " ") {
        event.preventDefault();
        pen = { at: pen?.at ?? [width / 2, height / 2], isDown: !pen?.isDown };
        if (pen.isDown) begin(pen.at);
      } else if (event.key in moves) {
        event.preventDefault();
        const [dx, dy] = moves[event.key];
        const [x, y] = pen?.at ?? [width / 2, height / 2];
        const at = [Math.min(width, Math.max(0, x + dx)), Math.min(height, Math.max(0, y + dy))];
        pen = { at, isDown: pen?.isDown ?? false };
        if (pen.isDown) extend(at);
      } else return;
      update();
    });
    canvas.addEventListener("blur", () => {
      pen = null;
      paint();
    });

    // pictures
    async function take(file) {
      message.textContent = "";
      if (file.size > MOST_BYTES) {
        message.textContent = `${file.name} has ${Math.round(file.size / 1e6)} MB; the limit is ${MOST_BYTES / 1e6} MB.`;
        return;
      }
      try {
        const bitmap = await createImageBitmap(file);
        const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
        image = make("canvas", {
          width: Math.max(1, Math.round(bitmap.width * scale)),
          height: Math.max(1, Math.round(bitmap.height * scale)),
        });
        const context = image.getContext("2d", READ);
        context.imageSmoothingQuality = "high";
        context.drawImage(bitmap, 0, 0, image.width, image.height);
        bitmap.close();
        strokes = [];
        update();
      } catch {
        message.textContent = `${file.name || "this"} is not a picture that this browser can read; PNG, JPEG and WebP always work.`;
      }
    }

    const chooser = make("input", { type: "file", accept: "image/*", hidden: true });
    chooser.addEventListener("change", () => {
      if (chooser.files.length) take(chooser.files[0]);
      chooser.value = "";
    });
    const takeFirst = (event, files) => {
      if (!files || !files.length) return;
      event.preventDefault();
      take(files[0]);
    };
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      takeFirst(event, event.dataTransfer?.files);
    });
    document.addEventListener("paste", (event) => takeFirst(event, event.clipboardData?.files));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

    const undo = make("button", { type: "button", textContent: "Undo", disabled: true, onclick: takeBack });
    const erase = make("button", { type: "button", textContent: "Clear", onclick: clear });
    const choose = make("button", { type: "button", textContent: "Picture …", onclick: () => chooser.click() });
    choose.title = "or drop a picture anywhere on the page, or paste one";
    const tools = make("div", { className: "tools" }, undo, erase, choose, chooser);
    tools.append(make("label", {}, "pen ", thickness));
    if (!isInk && facts.base[0] === 3) {
      tools.append(make("label", {}, "colour ", colour));
      for (const value of COLOURS) {
        const button = make("button", { type: "button", className: "colour", title: value });
        button.setAttribute("aria-label", `colour ${value}`);
        button.style.backgroundColor = value;
        button.addEventListener("click", () => (colour.value = value));
        tools.append(button);
      }
    }

    function picture() {
      if (!drawn()) return null;
      let [source, w, h] = [image, image?.width, image?.height];
      if (image === null) {
        const context = sheet.getContext("2d", READ);
        context.fillStyle = paper;
        context.fillRect(0, 0, width, height);
        draw(context, strokes, (own) => own);
        [source, w, h] = [sheet, width, height];
      }
      return { width: w, height: h, rgba: source.getContext("2d", READ).getImageData(0, 0, w, h).data };
    }

    requestAnimationFrame(paint);
    /** Clear it for an image from elsewhere. */
    function wipe() {
      [strokes, image] = [[], null];
      undo.disabled = true;
      paint();
    }

    return { canvas, tools, message, picture, drawn, wipe };
  }

  convscape.pad = { build, make };
})();
