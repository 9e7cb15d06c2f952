"use strict";

const $ = (id) => document.getElementById(id);
const PAGE = 30;
let query = null;
let shown = 0;

const base64 = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

async function ask(url, options) {
  const response = await fetch(url, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail || response.statusText);
  return body;
}

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function show(hit) {
  const item = element("li");
  const caption = (hit.text || hit.metadata.path || hit.id).split("\n")[0];
  const judged = hit.relevance !== null;
  const score = element("span", judged ? ` ${Math.floor(100 * hit.relevance)}%` : ` ${hit.score.toFixed(3)}`, "score");
  score.title = judged ? `relevance; score ${hit.score.toFixed(3)}` : "score";
  if (hit.modality === "text") {
    item.className = "passage";
    item.append(hit.metadata.heading ? element("strong", `${hit.metadata.heading}: `) : "", hit.text || "", score);
    return item;
  }
  const figure = element("figure");
  const button = element("button");
  button.title = "More like this";
  const image = element("img");
  image.loading = "lazy";
  image.alt = caption;
  image.src = `/v1/items/${encodeURIComponent(hit.id)}/image?size=640`;
  // Widths in proportion to the pictures' own, so that a row is filled with next to no cropping.
  const ratio = Math.min(3, Math.max(0.5, hit.metadata.width / hit.metadata.height || 1));
  item.style.flex = `${ratio} 1 ${Math.round(220 * ratio)}px`;
  button.append(image);
  button.addEventListener("click", () => start({ similar: hit.id, label: `like ${caption}` }));
  const words = element("figcaption", caption);
  words.append(score);
  figure.append(button, words);
  item.append(figure);
  return item;
}

async function next() {
  const { label, similar, ...body } = query;
  const modality = $("modality").value || null;
  const found = similar
    ? await ask(`/v1/items/${encodeURIComponent(similar)}/similar?k=${PAGE}`)
    : await ask("/v1/search", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, modality, k: PAGE, offset: shown }),
    });
  $("hits").append(...found.hits.map(show));
  shown += found.hits.length;
  $("more").hidden = Boolean(similar) || found.hits.length < PAGE;
  $("status").textContent = shown ? `${shown} results ${label}` : `Nothing in this collection ${label}`;
}

async function start(asked) {
  query = asked;
  shown = 0;
  $("hits").replaceChildren();
  $("more").hidden = true;
  $("status").textContent = "Searching…";
  try {
    await next();
  } catch (error) {
    $("status").textContent = error.message;
  }
}

const byFile = async (file) => start({ image: await base64(file), label: `like ${file.name}` });
const byWords = () => {
  const text = $("words").value.trim();
  if (!text) return;
  history.replaceState(null, "", `?q=${encodeURIComponent(text)}`);
  start({ text, label: `for “${text}”` });
};

$("search").addEventListener("submit", (event) => { event.preventDefault(); byWords(); });
$("modality").addEventListener("change", () => { if (query) start(query); });
$("file").addEventListener("change", () => { if ($("file").files.length) byFile($("file").files[0]); });
$("more").addEventListener("click", () => next().catch((error) => { $("status").textContent = error.message; }));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) byFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) byFile(event.clipboardData.files[0]); });

const asked = new URLSearchParams(location.search).get("q");
if (asked) { $("words").value = asked; byWords(); }
