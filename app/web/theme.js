// Run before anything is drawn, so that a chosen theme does not flash; no module, as those wait for the document.
(() => {
  "use strict";
  let chosen = null;
  try { chosen = localStorage.getItem("sightline-theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
