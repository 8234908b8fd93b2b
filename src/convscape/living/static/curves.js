"use strict";
/* The probability of each class while a slider plays: convscape.curves.draw(figure, slider, points). */
(() => {
  const [WIDTH, HEIGHT, LEFT, BOTTOM] = [440, 200, 34, 34];
  const LABELLED = 0.5; // classes that reach this probability are named

  const colour = (index, count) => `hsl(${Math.round((360 * index * 0.618) % 360)} 70% ${count > 1 ? 50 : 45}%)`;

  /** Which class is the answer in which range, in words. */
  function words({ unit }, points) {
    const spans = [];
    for (const { value, probabilities } of points) {
      const best = probabilities.indexOf(Math.max(...probabilities));
      const last = spans[spans.length - 1];
      if (last?.best === best) last.to = value;
      else spans.push({ best, from: value, to: value });
    }
    const number = (value) => Number(value.toFixed(2));
    return spans
      .map(({ best, from, to }) => `${convscape.classes[best]} from ${number(from)} to ${number(to)}`)
      .join("; ")
      .concat(` ${unit}`);
  }

  function draw(figure, slider, points) {
    figure.hidden = false;
    let canvas = figure.querySelector("canvas");
    if (canvas === null) {
      canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      figure.append(canvas, document.createElement("figcaption"));
    }
    Object.assign(canvas, { width: WIDTH, height: HEIGHT });
    const context = canvas.getContext("2d");
    const style = getComputedStyle(figure);
    const { low, high, name, unit } = slider;
    const x = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - LEFT - 24);
    const y = (share) => 12 + (1 - share) * (HEIGHT - BOTTOM - 12);
    context.font = `20px ${style.fontFamily}`;
    context.fillStyle = style.color;
    context.strokeStyle = style.borderColor;
    for (const share of [0, 1]) {
      context.beginPath();
      context.moveTo(LEFT, y(share));
      context.lineTo(WIDTH - 24, y(share));
      context.stroke();
      context.fillText(share, 8, y(share) + 7);
    }
    context.fillText(low, LEFT, HEIGHT - 6);
    const end = `${high} ${unit}`;
    context.fillText(end, WIDTH - context.measureText(end).width - 2, HEIGHT - 6);
    context.fillText(name, (WIDTH - context.measureText(name).width) / 2, HEIGHT - 6);
    context.lineWidth = 3;
    const count = convscape.classes.length;
    for (let index = 0; index < count; index++) {
      context.strokeStyle = context.fillStyle = colour(index, count);
      context.beginPath();
      let top = { share: 0, value: low };
      points.forEach(({ value, probabilities }, i) => {
        const share = probabilities[index];
        if (share > top.share) top = { share, value };
        if (i) context.lineTo(x(value), y(share));
        else context.moveTo(x(value), y(share));
      });
      context.stroke();
      const isOften = top.share >= LABELLED;
      if (isOften) context.fillText(convscape.classes[index].slice(0, 12), x(top.value) + 4, y(top.share) + 22);
    }
    const text = words(slider, points);
    figure.querySelector("figcaption").textContent = text;
    canvas.setAttribute("aria-label", `probability of each class by ${name}: ${text}`);
  }

  convscape.curves = { draw, words };
})();
