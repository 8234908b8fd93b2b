"use strict";
/* What the network says, and how sure it is: convscape.answer.start(root, document). */
(() => {
  function start(root) {
    const line = root.appendChild(document.createElement("p"));
    convscape.state.listen(({ probabilities }) => {
      const best = probabilities === null ? -1 : probabilities.indexOf(Math.max(...probabilities));
      line.textContent = best < 0 ? "" : `${convscape.classes[best]}: ${(100 * probabilities[best]).toFixed(1)} %`;
    });
  }

  convscape.answer = { start };
})();
