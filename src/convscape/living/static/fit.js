"use strict";
/* From strokes and pictures to what the network is given: pure functions in convscape.fit. */
(() => {
  convscape.fit = {};
})();
