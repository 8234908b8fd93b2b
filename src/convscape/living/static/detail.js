"use strict";
/* How a unit came about: convscape.detail.start(root, document). */
(() => {
  convscape.detail = { start() {} };
})();
