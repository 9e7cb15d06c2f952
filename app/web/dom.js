// Making elements, and telling things to those who cannot see them.

import { say } from "./language.js";

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM15.5 15.5 20.5 20.5",
  picture: "M4 6.5A1.5 1.5 0 0 1 5.5 5h13A1.5 1.5 0 0 1 20 6.5v11a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5ZM4.5 17l4.5-5 3.5 3.5 3-3 4 4M15.5 9.2h.01",
  filter: "M4 7h16M7 12h10M10 17h4",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10Z",
  send: "M4.5 12 20 4.5 14.5 20l-3-6.5Z",
  stop: "M7 7h10v10H7Z",
  retry: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9M19.5 4.5V9H15",
};

// What backends.harmless takes out: controls, and what changes the direction of writing beyond a letter's own.
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]/g;
const SAID = new Set(["title", "alt", "aria-label", "placeholder", "textContent"]);

/** A text, whoever wrote it, without what could show it elsewhere or otherwise than it is; all else stays. */
export const harmless = (text) => text.replace(UNSAFE, "");

const shown = (value) => (typeof value === "string" ? harmless(value) : value);

/** An element: `props` are properties, or attributes where they hold a dash or are `role`; `on` holds listeners. */
export function h(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, given] of Object.entries(props)) {
    const value = SAID.has(key) ? shown(given) : given;
    if (value === undefined || value === null) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.includes("-") || ["role", "for", "list", "form"].includes(key)) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(shown));
  return node;
}

/** A drawing that says nothing by itself; its button has a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

export const button = (label, onclick, props = {}, ...children) =>
  h("button", { type: "button", ...props, on: { click: onclick } }, ...(children.length ? children : [label]));

/** A button of a drawing only. */
export const iconButton = (name, label, onclick, props = {}) =>
  button(label, onclick, { "aria-label": label, title: label, ...props, class: `icon ${props.class ?? ""}` }, icon(name));

let told = 0;

/** Tell what changed to a screen reader, once typing has paused. */
export function announce(text) {
  clearTimeout(told);
  told = setTimeout(() => { document.getElementById("announce").textContent = harmless(text); }, 150);
}

/** The sentence that a failure begins with, in the page's language. */
export const leadOf = (error) => error.lead ?? say("problem.other");

/** What went wrong, and a way on: a sentence of the page's, and below it what the service or the browser says, in English. */
export function failure(error, again) {
  return h("div", { class: "notice failed", role: "alert" },
    h("div", {}, h("p", {}, h("strong", {}, leadOf(error))), h("p", error.isOurs ? {} : { lang: "en", dir: "auto" }, error.message)),
    again ? button(say("problem.again"), again) : null);
}

/** Copy a text; also where the page is not in a secure context and has no clipboard. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { value: text, class: "unseen" });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
