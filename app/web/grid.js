// The grid of results: rows filled edge to edge with next to no cropping, by flex items that grow as wide as they are.

import { h, harmless, iconButton } from "./dom.js";
import { number, percent, say } from "./language.js";
import { picture } from "./pictures.js";

const TEXT_RATIO = 1.5;

const rowHeight = () => (innerWidth < 520 ? 112 : innerWidth < 1100 ? 180 : 220);

export function ratioOf(hit) {
  if (hit.modality !== "image") return TEXT_RATIO;
  const { width, height } = hit.metadata;
  return width > 0 && height > 0 ? Math.min(3, Math.max(0.45, width / height)) : 1;
}

export const captionOf = (hit) => String(hit.text || [hit.metadata.path].flat()[0] || hit.id).split("\n")[0];

/**
 * What is shown of how good a result is, and what that is called: its relevance, or where that is not known, or tells
 * little, as of what is like a picture, its score.
 */
export function relevanceOf(hit, { alike = false } = {}) {
  const known = hit.relevance !== null && hit.relevance !== undefined;
  if (!known) return { text: number(hit.score, 2), name: say("score.name"), title: say("score.unjudged") };
  const relevance = percent(hit.relevance);
  if (alike) return { text: number(hit.score, 2), name: say("score.alike"), title: say("score.alike.title", { relevance }) };
  return { text: relevance, name: say("score.relevance"), title: say("score.relevance.title", { score: number(hit.score, 3) }) };
}

/** A result as a list item; its picture is fetched by `fetchMeasured`. `open`, `more` and `less` are called with the hit. */
export function tile(hit, { collection, low, alike, open, more, less }) {
  const ratio = ratioOf(hit);
  const height = rowHeight();
  const caption = captionOf(hit);
  const relevance = relevanceOf(hit, { alike });
  const inside = hit.modality === "image"
    ? picture({ id: hit.id, alt: caption, ratio, collection })
    : h("span", { class: "passage", dir: "auto" }, hit.metadata.heading ? h("strong", {}, String(hit.metadata.heading)) : null, hit.text ?? hit.id);
  const opener = h("button", { type: "button", class: "open", on: { click: () => open(hit) } }, inside);
  if (hit.modality === "image") opener.setAttribute("aria-label", harmless(say("grid.open", { caption, name: relevance.name, value: relevance.text })));
  const badge = h("span", { class: `badge${low ? " low" : ""}`, title: relevance.title }, relevance.text);
  const copies = hit.duplicates?.length ? h("span", { class: "badge copies" }, `+${number(hit.duplicates.length)}`) : null;
  const gone = hit.gone ? h("span", { class: "badge low", title: say("item.gone.title") }, say("item.gone")) : null;
  const actions = h("div", { class: "actions" },
    iconButton("plus", say("grid.more", { caption }), () => more(hit), { title: say("steer.more") }),
    iconButton("minus", say("grid.less", { caption }), () => less(hit), { title: say("steer.less") }));
  const item = h("li", { class: hit.modality, data: { id: hit.id } }, opener, h("span", { class: "badges" }, badge, copies, gone), actions);
  // Widths in proportion to the pictures' own, so that all in a row come out equally high.
  item.style.flexGrow = String(Math.round(ratio * 1000));
  item.style.flexBasis = `${Math.round(ratio * height)}px`;
  item.style.aspectRatio = String(ratio);
  return item;
}

/** Arrow keys go from picture to picture; up and down to the nearest one of the next row. */
export function withArrows(list) {
  list.addEventListener("keydown", (event) => {
    const from = event.target.closest("li");
    if (!from || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
    const to = event.key === "ArrowLeft" ? from.previousElementSibling
      : event.key === "ArrowRight" ? from.nextElementSibling
        : nextRow(list, from, event.key === "ArrowDown");
    if (!to) return;
    event.preventDefault();
    to.querySelector(".open").focus();
    to.scrollIntoView({ block: "nearest" });
  });
}

function nextRow(list, from, down) {
  const here = from.getBoundingClientRect();
  const middle = here.left + here.width / 2;
  const boxes = [...list.children].map((node) => ({ node, box: node.getBoundingClientRect() }));
  const beyond = boxes.filter(({ box }) => (down ? box.top > here.top + 5 : box.top < here.top - 5));
  if (!beyond.length) return null;
  const top = down ? Math.min(...beyond.map(({ box }) => box.top)) : Math.max(...beyond.map(({ box }) => box.top));
  const away = ({ box }) => Math.abs(box.left + box.width / 2 - middle);
  return beyond.filter(({ box }) => Math.abs(box.top - top) < 5).sort((a, b) => away(a) - away(b))[0].node;
}
