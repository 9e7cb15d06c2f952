// The box that takes words, pictures and items to be like or unlike, and the choices below it.

import { itemPath, call } from "./api.js";
import { whenTyped } from "./composing.js";
import { h, harmless, icon, iconButton } from "./dom.js";
import { captionOf, ratioOf } from "./grid.js";
import { number, say } from "./language.js";
import { keptPicture, picture } from "./pictures.js";
import { MODES } from "./state.js";

const invitation = () => (innerWidth < 520 ? say("box.invitation.narrow") : say("box.invitation"));

/**
 * `typed()` is called at every change of the words, `sent()` when they are sent off, `chosen(change)` with a
 * change of the state, `took(file)` with a picture, `toFilters()` and `toResults()` to go there.
 */
export function searchBox({ typed, sent, chosen, took, toFilters, toResults }) {
  const words = h("input", {
    id: "words", type: "search", maxLength: 2000, autocomplete: "off", spellcheck: false, enterKeyHint: "search", dir: "auto",
    placeholder: invitation(), "aria-label": say("box.words"),
  });
  const chips = h("span", { class: "parts" });
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", tabIndex: -1, "aria-hidden": "true" });
  const pick = iconButton("picture", say("box.picture"), () => file.click());
  const box = h("div", { class: "box" }, icon("search"), chips, words, pick, file);
  const radio = (value, label) => h("label", {}, h("input", { type: "radio", name: "find", value }), h("span", {}, label));
  const find = h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, say("box.find")),
    radio("image", say("box.find.image")), radio("text", say("box.find.text")), radio("any", say("box.find.any")));
  const mode = h("select", { "aria-label": say("box.mode") },
    MODES.map((value) => h("option", { value }, say(`box.mode.${value}`))));
  const collection = h("select", { "aria-label": say("box.collection"), hidden: true });
  const count = h("span", { class: "count" });
  const filters = h("button", { type: "button", class: "filter", "aria-controls": "filters", on: { click: toFilters } }, icon("filter"), say("filters.title"), count);
  const element = h("form", { class: "searchbox", role: "search" }, box, h("div", { class: "row" }, find, filters, mode, collection));

  const composition = whenTyped(words, typed);
  words.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); toResults(); }
    if (event.key === "Backspace" && !words.value && chips.children.length) chips.lastElementChild.querySelector("button:last-child").click();
  });
  element.addEventListener("submit", (event) => { event.preventDefault(); sent(); });
  find.addEventListener("change", (event) => chosen({ find: event.target.value }));
  mode.addEventListener("change", () => chosen({ mode: mode.value }));
  // What is filtered by, and the items, belong to the collection.
  collection.addEventListener("change", () => chosen({ collection: collection.value || null, where: null, like: [], unlike: [] }));
  file.addEventListener("change", () => { if (file.files.length) took(file.files[0]); file.value = ""; });

  const shown = new Map();
  const addresses = new Map();

  async function drawPicture(token, place) {
    const kept = await keptPicture(token);
    if (!kept) { place.textContent = "?"; return; }
    if (!addresses.has(token)) addresses.set(token, URL.createObjectURL(kept.blob));
    place.replaceChildren(h("img", { src: addresses.get(token), alt: say("search.picture") }));
  }

  async function drawItem(id, place, within) {
    try {
      const item = await call(itemPath(id, { collection: within }));
      place.title = harmless(captionOf(item));
      place.replaceChildren(item.modality === "image"
        ? picture({ id, alt: captionOf(item), width: 40, ratio: ratioOf(item), collection: within, eager: true })
        : h("span", { class: "quote", dir: "auto" }, captionOf(item)));
    } catch { place.textContent = "?"; }
  }

  function chip(key, kind, label, draw, remove, turn) {
    let node = shown.get(key);
    if (!node) {
      const place = h("span", { class: "thumb" });
      node = h("span", { class: `chip ${kind}` },
        turn ? iconButton(kind === "unlike" ? "minus" : "plus", say("box.turn", { label }), turn) : null,
        place, iconButton("close", say("box.remove", { label }), remove));
      shown.set(key, node);
      draw(place);
    }
    return [key, node];
  }

  return {
    element, words,
    isComposing: composition.isBusy,
    /** Show a state; what is being typed stays. */
    show(state) {
      const isTyped = composition.isBusy() || (document.activeElement === words && words.value.trim() === state.q);
      if (!isTyped) words.value = state.q;
      const without = (name, id) => ({ [name]: state[name].filter((each) => each !== id) });
      const turned = (from, to, id) => ({ ...without(from, id), [to]: [...state[to], id] });
      const parts = [];
      if (state.picture) parts.push(chip(`p ${state.picture}`, "like", say("search.picture"), (place) => drawPicture(state.picture, place), () => chosen({ picture: null })));
      for (const [name, other, label] of [["like", "unlike", say("box.like")], ["unlike", "like", say("box.unlike")]]) {
        for (const id of state[name]) {
          const key = `${name} ${state.collection} ${id}`;
          // Its buttons act on the state of their time, so it is drawn anew with each.
          shown.delete(key);
          parts.push(chip(key, name, label, (place) => drawItem(id, place, state.collection),
            () => chosen(without(name, id)), () => chosen(turned(name, other, id))));
        }
      }
      for (const key of shown.keys()) if (!parts.some(([each]) => each === key)) shown.delete(key);
      chips.replaceChildren(...parts.map(([, node]) => node));
      words.placeholder = parts.length ? say("box.add") : invitation();
      find.querySelector(`[value="${state.find}"]`).checked = true;
      mode.value = state.mode;
      collection.value = state.collection ?? "";
    },
    showFilters(many, open) {
      count.textContent = many ? number(many) : "";
      filters.setAttribute("aria-expanded", String(open));
      filters.setAttribute("aria-label", many ? say("filters.set", { n: many }) : say("filters.title"));
    },
    /** The collections to choose from, where there is a choice. */
    offer(collections, current) {
      collection.hidden = collections.length < 2;
      collection.replaceChildren(...collections.map(({ name, default: own, count: size }) =>
        h("option", { value: own ? "" : name }, say("box.collection.sized", { name, n: size }))));
      collection.value = current ?? "";
    },
  };
}

export const tip = (keys, text) => h("li", {}, ...keys.map((key) => h("kbd", {}, key)), ` ${text}`);

