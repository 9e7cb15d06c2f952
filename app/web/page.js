// The page: its views, which one is shown, theme, language and key.

import { call } from "./api.js";
import { guardComposition } from "./composing.js";
import { icon } from "./dom.js";
import { keys } from "./keys.js";
import { languageSwitch, say } from "./language.js";
import { address, onChange, params, start } from "./router.js";
import { searchView } from "./search.js";

const main = document.getElementById("main");

/** The document's own texts; what holds them is hidden until they are there. */
function fillIn() {
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const node of document.querySelectorAll("[data-hint]")) node.title = say(node.dataset.hint);
  for (const node of document.querySelectorAll(".bar > nav, .bar > .tools")) node.hidden = false;
  // For the style sheet, which says it while a picture is dragged over the page.
  document.body.dataset.drop = say("picture.drop");
}

guardComposition();
fillIn();
languageSwitch(document.getElementById("language"), () => views.chat?.keep());
// Without a prototype: what the address names is looked up here, and may be called like a method of every object.
const views = { __proto__: null, search: searchView() };
const makers = {
  __proto__: null,
  chat: async () => (await import("./chat.js")).chatView(),
  index: async () => (await import("./indexing.js")).indexView(),
  engines: async () => (await import("./engines.js")).enginesView(),
};
let shown = null;
let searched = new URLSearchParams();

async function show({ moved }) {
  const asked = params().get("view");
  const name = asked in makers ? asked : "search";
  views[name] ??= await makers[name]();
  const view = views[name];
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  keepPlace(name);
  if (shown !== name) {
    if (shown) views[shown].leave?.();
    main.replaceChildren(view.element);
    // Whoever reads by ear is told that there is a new page; the first one is told by the browser.
    if (shown) main.focus({ preventScroll: true });
    shown = name;
  }
  document.title = say("page.title", { view: say(`view.${name}`) });
  view.enter({ moved });
}

/** Links to views keep the collection that is looked at, and the one to the search, from elsewhere, what was found. */
function keepPlace(name) {
  const collection = params().get("collection");
  if (name === "search") searched = params();
  for (const link of document.querySelectorAll('[data-view="search"], [data-view="chat"]')) {
    const query = new URLSearchParams();
    if (link.dataset.view !== "search") query.set("view", link.dataset.view);
    if (collection) query.set("collection", collection);
    link.href = address(link.dataset.view === "search" && name !== "search" ? searched : query);
  }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function drawTheme() {
  const switcher = document.getElementById("theme");
  const label = isDark() ? say("theme.light") : say("theme.dark");
  switcher.replaceChildren(icon(isDark() ? "sun" : "moon"));
  switcher.setAttribute("aria-label", label);
  switcher.title = label;
}

document.getElementById("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("sightline-theme", theme); } catch { /* then for this page only */ }
  drawTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);
drawTheme();

document.getElementById("key").addEventListener("click", () => { keys.forget(); location.reload(); });
keys.show();

/** Chat is only there where the service offers it; its description says so without a key and without an error. */
async function offerChat() {
  try {
    const { paths } = await call("/openapi.json");
    document.querySelector('nav [data-view="chat"]').hidden = !("/v1/chat" in paths);
  } catch { /* the views say that the service is away */ }
}

onChange(show);
start();
show({ moved: false });
offerChat();
