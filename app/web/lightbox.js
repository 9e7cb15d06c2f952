// The lightbox: one item at a time, large, with all that is known of it.

import { call, itemPath } from "./api.js";
import { announce, button, copy, failure, h, iconButton } from "./dom.js";
import { captionOf, ratioOf, relevanceOf } from "./grid.js";
import { rowOf, say } from "./language.js";
import { picture } from "./pictures.js";

const INTERNAL = new Set(["content_hash", "image"]);
const SWIPED_PX = 60;

/**
 * A modal dialog over items. `closed()` is called when it was closed by the person, `moved(hit)` when another
 * item is shown, `more(hit)` and `less(hit)` for its buttons, `further()` resolves when there may be more items.
 */
export function lightbox({ closed, moved, more, less, further }) {
  let hits = [];
  let index = 0;
  let collection = null;
  const stage = h("div", { class: "stage" });
  const facts = h("div", { class: "facts" });
  const previous = iconButton("left", say("lightbox.previous"), () => step(-1), { class: "previous" });
  const next = iconButton("right", say("lightbox.next"), () => step(1), { class: "next" });
  const close = iconButton("close", say("lightbox.close"), () => node.close(), { class: "close" });
  const node = h("dialog", { class: "lightbox", "aria-labelledby": "lightbox-title" }, close, previous, stage, next, facts);
  let restore = null;
  let quiet = false;

  node.addEventListener("close", () => {
    stage.replaceChildren();
    node.remove();
    // The tile may have been drawn anew since.
    const id = hits[index]?.id;
    const again = [...document.querySelectorAll("li[data-id]")].find((each) => each.dataset.id === id);
    (again?.querySelector(".open") ?? (restore?.isConnected ? restore : document.getElementById("main"))).focus({ preventScroll: false });
    if (!quiet) closed();
  });
  node.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  let touched = null;
  stage.addEventListener("touchstart", (event) => { touched = event.touches.length === 1 ? event.touches[0].clientX : null; }, { passive: true });
  stage.addEventListener("touchend", (event) => {
    const by = touched === null ? 0 : event.changedTouches[0].clientX - touched;
    if (Math.abs(by) > SWIPED_PX) step(by < 0 ? 1 : -1);
  }, { passive: true });
  node.addEventListener("click", (event) => { if (event.target === node || event.target === stage) node.close(); });

  async function step(by) {
    if (by > 0 && index + by >= hits.length && further && hits.length > 1) hits = (await further()) ?? hits;
    if (!hits[index + by]) return;
    index += by;
    draw();
    moved?.(hits[index]);
  }

  function draw() {
    const hit = hits[index];
    const caption = captionOf(hit);
    stage.replaceChildren(hit.modality === "image"
      ? picture({ id: hit.id, alt: caption, width: Math.min(innerWidth, 1280), ratio: ratioOf(hit), collection, eager: true })
      : h("blockquote", { tabIndex: 0, dir: "auto" }, hit.text ?? ""));
    previous.disabled = index === 0;
    next.disabled = index === hits.length - 1 && (!further || hits.length === 1);
    facts.replaceChildren(...describe(hit, caption));
    facts.scrollTop = 0;
    announce(say("lightbox.place", { at: index + 1, of: hits.length, caption }));
  }

  function describe(hit, caption) {
    const rows = Object.entries(hit.metadata).filter(([name]) => !INTERNAL.has(name)).map(([name, value]) =>
      h("div", {}, h("dt", { dir: "auto" }, name), h("dd", { dir: "auto" }, Array.isArray(value) ? rowOf(value) : String(value))));
    const copied = (what) => async (event) => {
      const pressed = event.currentTarget;
      await copy(what());
      const label = pressed.textContent;
      pressed.textContent = say("lightbox.copied");
      announce(say("lightbox.copied"));
      setTimeout(() => { pressed.textContent = label; }, 1500);
    };
    const [title, ...rest] = hit.modality === "image" ? (hit.text || caption).split("\n") : [String(hit.metadata.heading ?? say("lightbox.text"))];
    return [
      h("h2", { id: "lightbox-title", dir: "auto" }, title),
      ...(hit.modality === "image" ? rest.filter(Boolean).map((line) => h("p", { dir: "auto" }, line)) : []),
      hit.score === undefined ? null : h("p", { class: "soft" },
        h("strong", {}, relevanceOf(hit).text), " ", hit.exact ? relevanceOf(hit).title : say("lightbox.approximate", { title: relevanceOf(hit).title })),
      hit.gone ? h("p", { class: "soft" }, say("item.gone.title")) : null,
      h("div", { class: "row" },
        more ? button(say("steer.more"), () => leaveFor(() => more(hit)), { class: "first" }) : null,
        less ? button(say("steer.less"), () => leaveFor(() => less(hit))) : null,
        hit.modality === "text" && typeof hit.metadata.image === "string" ? button(say("lightbox.picture"), () => showPicture(hit)) : null,
        button(say("lightbox.link"), copied(() => location.href))),
      h("dl", {}, ...rows,
        h("div", {}, h("dt", {}, say("lightbox.id")), h("dd", { class: "id" }, h("code", {}, hit.id), button(say("lightbox.id.copy"), copied(() => hit.id), { class: "small" }))),
        hit.duplicates?.length ? h("div", {}, h("dt", {}, say("lightbox.duplicates")), h("dd", { dir: "auto" }, rowOf(hit.duplicates))) : null),
    ].filter(Boolean);
  }

  /** The picture that a found caption describes. */
  async function showPicture(hit) {
    try {
      const item = await readItem(hit.metadata.image, collection);
      [hits, index] = [[item], 0];
      draw();
      moved?.(item);
    } catch (error) {
      facts.prepend(failure(error));
    }
  }

  function leaveFor(act) {
    quiet = true;
    node.close();
    quiet = false;
    act();
  }

  return {
    isOpen: () => node.open,
    current: () => hits[index]?.id ?? null,
    /** Show the item at `at`; the element that has the focus now gets it back at the end. */
    open(given, at, { of = null } = {}) {
      [hits, index, collection] = [given, at, of];
      if (!node.open) {
        restore = document.activeElement;
        document.body.append(node);
        node.showModal();
        close.focus();
      }
      draw();
    },
    /** Close without telling. */
    shut() {
      if (!node.open) return;
      quiet = true;
      node.close();
      quiet = false;
    },
  };
}

/** A stored item as if it had been found. Throws `Failure`. */
export const readItem = (id, collection) => call(itemPath(id, { collection }));
