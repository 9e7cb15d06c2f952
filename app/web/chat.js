// The chat view: questions, streamed answers whose numbers open what they cite, and what the model saw.

import { events, Failure } from "./api.js";
import { announce, button, failure, h, iconButton } from "./dom.js";
import { lightbox, readItem } from "./lightbox.js";
import { base64, keepPicture, keptPicture, picture, takePictures } from "./pictures.js";
import { params } from "./router.js";
import { relevanceOf } from "./grid.js";

const MOST_HISTORY = 32;
const LONGEST = 4000;
const CITATION = /\[(\d{1,3})\]/g;

export function chatView() {
  const turns = [];
  let attached = null;
  let running = null;
  let selected = null;
  const shown = lightbox({ closed: () => {} });
  const list = h("ol", { class: "turns", "aria-label": "Conversation" });
  const hero = h("div", { class: "hero" }, h("h2", {}, "Ask about your pictures"),
    h("p", {}, "Answers come from what the collection holds; every number in them opens what it rests on."));
  const talk = h("div", { class: "talk", tabIndex: 0, role: "region", "aria-label": "Conversation" }, hero, list);
  const question = h("textarea", { id: "question", rows: 1, maxLength: LONGEST, placeholder: "Ask a question", "aria-label": "Question" });
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", tabIndex: -1, "aria-hidden": "true" });
  const send = h("button", { class: "icon first", "aria-label": "Send", title: "Send" });
  const shelf = h("div", { class: "attached", hidden: true });
  const composer = h("form", { class: "composer" }, shelf,
    h("div", { class: "box" }, iconButton("picture", "Attach a picture", () => file.click(), { class: "plain" }), file, question, send));
  const fresh = button("New conversation", clear, { class: "small", hidden: true });
  const sources = h("aside", { class: "sources", "aria-label": "Sources" });
  const element = h("div", { class: "chat" }, h("h1", { class: "unseen" }, "Chat"), talk, composer, sources);

  file.addEventListener("change", () => { if (file.files.length) attach(file.files[0]); file.value = ""; });
  takePictures(() => document.body.dataset.view === "chat", attach);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    // What is typed meanwhile waits: only the button stops an answer.
    if (!running) composer.requestSubmit();
  });
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) { running.abort(); return; }
    const text = question.value.trim();
    if (!text) return;
    question.value = "";
    ask({ question: text, picture: attached, history: past() });
    attach(null);
  });

  async function attach(given) {
    try { attached = given ? await keepPicture(given) : null; } catch (error) { announce(error.message); shelf.replaceChildren(failure(error)); shelf.hidden = false; return; }
    shelf.hidden = !attached;
    const kept = attached && await keptPicture(attached);
    shelf.replaceChildren(...(kept ? [h("img", { src: URL.createObjectURL(kept.blob), alt: "Attached picture" }), iconButton("close", "Remove the picture", () => attach(null))] : []));
  }

  const past = () => turns.filter((turn) => turn.answer).slice(-MOST_HISTORY)
    .map(({ question: asked, answer }) => ({ question: asked, answer: answer.answer, query: answer.query }));

  function clear() {
    running?.abort();
    turns.length = 0;
    list.replaceChildren();
    select(null);
    draw();
    question.focus();
  }

  async function ask(asked) {
    const turn = { ...asked, evidence: [], answer: null, error: null, stopped: false, text: "", note: "" };
    turns.push(turn);
    const kept = turn.picture && await keptPicture(turn.picture);
    turn.body = h("div", { class: "answer" });
    list.append(
      h("li", { class: "asked" }, kept ? h("img", { src: URL.createObjectURL(kept.blob), alt: "Attached picture" }) : null, turn.question),
      h("li", {}, turn.body));
    await answer(turn, kept);
  }

  async function answer(turn, kept) {
    const controller = new AbortController();
    running = controller;
    Object.assign(turn, { evidence: [], answer: null, error: null, stopped: false, text: "", note: "Searching…" });
    select(turn);
    draw();
    drawTurn(turn);
    talk.scrollTop = talk.scrollHeight;
    announce("Searching");
    const json = { question: turn.question, history: turn.history };
    const collection = params().get("collection");
    try {
      if (kept) json.image = await base64(kept.blob);
      const path = collection ? `/v1/chat?collection=${encodeURIComponent(collection)}` : "/v1/chat";
      for await (const { event, data } of events(path, { method: "POST", json, signal: controller.signal })) take(turn, event, data);
      if (!turn.answer && !turn.error) throw new Failure(0, "The answer broke off.");
    } catch (error) {
      if (error.name === "AbortError") turn.stopped = true;
      else turn.error = error;
      if ([404, 405].includes(error.status)) document.querySelector('nav [data-view="chat"]').hidden = true;
    } finally {
      if (running === controller) running = null;
    }
    turn.note = "";
    drawTurn(turn);
    draw();
    announce(turn.answer ? turn.answer.answer : turn.stopped ? "Stopped" : turn.error.message);
  }

  function take(turn, event, data) {
    const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
    if (event === "evidence") {
      turn.evidence = data.evidence;
      turn.note = data.evidence.length ? `Reading ${data.evidence.length} source${data.evidence.length === 1 ? "" : "s"}…` : "Nothing relevant was found…";
      if (selected === turn) drawSources();
    } else if (event === "token") turn.text += data.text;
    else if (event === "retrying") { turn.note = `Trying again in ${Math.ceil(data.wait_s)} s: ${data.reason}`; turn.text = ""; }
    else if (event === "final") {
      turn.answer = data;
      if (selected === turn) drawSources();
    }
    else if (event === "error") turn.error = new Failure(data.status ?? 500, data.detail ?? "The answer failed.");
    drawTurn(turn);
    if (atEnd) talk.scrollTop = talk.scrollHeight;
  }

  function drawTurn(turn) {
    const parts = [];
    const { answer: checked } = turn;
    if (checked) parts.push(h("div", { class: "text" }, cited(turn, checked.answer)));
    else if (turn.text) parts.push(h("div", { class: "text draft" }, turn.text));
    if (turn.note && !turn.text && !checked) parts.push(h("p", { class: "soft" }, turn.note));
    if (turn.stopped) parts.push(h("p", { class: "soft" }, turn.text ? "Stopped. What stands above is an unchecked draft." : "Stopped."));
    if (turn.error) parts.push(failure(turn.error));
    const notes = checked ? remarks(checked) : [];
    if (notes.length) parts.push(h("p", { class: "soft" }, notes.join(" ")));
    if (checked || turn.error || turn.stopped) {
      parts.push(h("div", { class: "row" },
        button("Retry", async () => { if (!running) answer(turn, turn.picture && await keptPicture(turn.picture)); }, { class: "small" }),
        turn.evidence.length ? button(`Sources (${turn.evidence.length})`, () => select(turn), { class: "small" }) : null));
    }
    turn.body.replaceChildren(...parts);
  }

  function remarks({ refused, quoted, truncated, counts, notices }) {
    return [
      quoted && "This is the best source itself: no sentence of the model's had support.",
      // What else was wrong with the model's sentences is no matter when none of them is shown.
      !quoted && truncated && "The model stopped at its length limit.",
      ...(notices ?? []).map((each) => `${each}.`),
      !refused && !quoted && counts?.unsupported > 0 && `${counts.unsupported} sentence${counts.unsupported === 1 ? " is" : "s are"} not supported by the sources.`,
    ].filter(Boolean);
  }

  /** The text with a button for each number that is a source's. */
  function cited(turn, text) {
    const nodes = [];
    let from = 0;
    for (const match of text.matchAll(CITATION)) {
      const source = turn.answer.sources.find((each) => each.number === Number(match[1]));
      if (!source) continue;
      const name = (source.caption ?? source.id).split("\n")[0];
      nodes.push(text.slice(from, match.index), button(match[1], () => openSource(turn, source.number), {
        class: "cite", title: name, "aria-label": `Source ${match[1]}: ${name}`,
      }));
      from = match.index + match[0].length;
    }
    return [...nodes, text.slice(from)];
  }

  function select(turn) {
    selected = turn;
    drawSources();
  }

  function drawSources(lit = null) {
    const evidence = selected?.evidence ?? [];
    sources.hidden = !evidence.length;
    const used = new Set(selected?.answer?.sources.map((each) => each.number));
    sources.replaceChildren(h("h2", {}, "What the model saw"),
      h("p", { class: "soft" }, selected?.answer ? `${used.size} of ${evidence.length} cited` : `${evidence.length} found`),
      h("ol", {}, evidence.map((each) => {
        const name = (each.caption ?? each.id).split("\n")[0];
        const thumb = each.image
          ? h("span", { class: "thumb" }, picture({ id: each.id, alt: "", width: 76, ratio: 1, collection: params().get("collection"), eager: true }))
          : h("span", { class: "thumb words" }, "text");
        return h("li", { class: each.number === lit ? "lit" : "" }, button("", () => openSource(selected, each.number), {},
          thumb, h("span", { class: "name" }, `[${each.number}] ${name}`),
          h("span", { class: "soft" }, [each.relevance === null ? "" : relevanceOf({ relevance: each.relevance, score: 0 }).text, used.has(each.number) ? "cited" : ""].filter(Boolean).join(" · "))));
      })));
  }

  async function openSource(turn, number) {
    if (selected !== turn) selected = turn;
    drawSources(number);
    const collection = params().get("collection");
    try {
      // All of them can be stepped through, from the one that was asked for.
      const items = await Promise.all(turn.evidence.map(({ id }) => readItem(id, collection).catch(() => null)));
      const there = items.filter(Boolean);
      const wanted = turn.evidence.find((each) => each.number === number)?.id;
      const at = there.findIndex((item) => item.id === wanted);
      if (at < 0) throw new Failure(404, "This source is no longer in the collection.");
      shown.open(there, at, { of: collection });
    } catch (error) {
      sources.prepend(failure(error));
    }
  }

  function draw() {
    hero.hidden = turns.length > 0;
    fresh.hidden = !turns.length;
    if (!fresh.isConnected) composer.append(h("div", { class: "row" }, fresh));
    const label = running ? "Stop" : "Send";
    send.setAttribute("aria-label", label);
    send.title = label;
    send.replaceChildren(...iconButton(running ? "stop" : "send", label, () => {}).childNodes);
  }

  draw();
  drawSources();
  return {
    element,
    enter() { if (!matchMedia("(pointer: coarse)").matches) question.focus({ preventScroll: true }); },
    leave() { shown.shut(); },
  };
}
