"use strict";
/* The network on one screen: convscape.view.start(root, document). */
(() => {
  convscape.view = { start() {} };
})();
