// The API key: asked for when the service wants one, kept until the tab is closed, never in an address.

import { button, h } from "./dom.js";
import { say } from "./language.js";

const NAME = "sightline-key";
let memory = null;
let asking = null;

function kept() {
  try { return sessionStorage.getItem(NAME); } catch { return memory; }
}

function keep(key) {
  memory = key;
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch { /* then only as long as this page is open */ }
  document.getElementById("key").hidden = key === null;
}

function dialog(refused) {
  return new Promise((resolve) => {
    const input = h("input", {
      type: "password", id: "key-text", autocomplete: "off", spellcheck: false, required: true, "aria-describedby": "key-why",
    });
    const why = refused
      ? say("key.unknown")
      : say("key.asked");
    const node = h("dialog", { class: "small", "aria-labelledby": "key-title" },
      h("form", { method: "dialog", on: { submit: () => node.close(input.value.trim()) } },
        h("h2", { id: "key-title" }, say("key.title")),
        h("p", { id: "key-why" }, why),
        h("label", { for: "key-text" }, say("key.label")), input,
        h("div", { class: "row end" }, button(say("key.cancel"), () => node.close("")), h("button", { class: "first" }, say("key.use")))));
    node.addEventListener("close", () => {
      const given = node.returnValue;
      node.remove();
      if (given) keep(given);
      resolve(Boolean(given));
    });
    document.body.append(node);
    node.showModal();
    input.focus();
  });
}

export const keys = {
  current: kept,
  headers: () => (kept() ? { Authorization: `Bearer ${kept()}` } : {}),
  /** Ask for a key, once for all calls that wait for it; false when none was given. */
  ask(refused) {
    asking ??= dialog(refused).finally(() => { asking = null; });
    return asking;
  },
  forget: () => keep(null),
  show: () => { document.getElementById("key").hidden = kept() === null; },
};
