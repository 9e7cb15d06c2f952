// Run before anything is drawn, so that neither theme nor language flashes; no module, as those wait for the document.
(() => {
  "use strict";
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; /* storage may be forbidden */ } };
  const root = document.documentElement;
  const theme = kept("sightline-theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  // The first of the reader's languages that the page has; every Chinese one is read in simplified characters.
  const known = { __proto__: null, en: "en", zh: "zh-CN" };
  const wished = [kept("sightline-language"), ...navigator.languages ?? [navigator.language]];
  const short = wished.map((tag) => String(tag).toLowerCase().split("-")[0]).find((tag) => tag in known) ?? "en";
  root.lang = known[short];
  // The texts are asked for at once, not when the modules have found out that they need them.
  const link = document.createElement("link");
  link.rel = "modulepreload";
  link.href = `/static/strings.${short}.js`;
  document.head.append(link);
})();
