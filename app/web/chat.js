// The chat view: questions, streamed answers whose numbers open what they cite, and what the model saw.

import { events, Failure, Refusal } from "./api.js";
import { announce, button, failure, h, iconButton, leadOf } from "./dom.js";
import { duration, say } from "./language.js";
import { lightbox, readItem } from "./lightbox.js";
import { base64, keepPicture, keptPicture, picture, takePictures } from "./pictures.js";
import { params } from "./router.js";
import { relevanceOf } from "./grid.js";
import { noticeOf } from "./reasons.js";

const MOST_HISTORY = 32;
const LONGEST = 4000;
const KEPT = "sightline-chat";
/** What is put behind a sentence: its class, its sign, and what it means. Sentences of other verdicts have no mark. */
const MARKS = {
  stated: ["stated", "✓", () => say("chat.mark.stated")],
  uncited: ["mild", "?", () => say("chat.mark.uncited")],
  dangling: ["mild", "?", () => say("chat.mark.dangling")],
  unsupported: ["mild", "?", () => say("chat.mark.unsupported")],
  contradicted: ["conflict", "!", (source) => say("chat.mark.contradicted", { source })],
};

/** What the model looked for itself, by the tool's name. */
const LOOKED = {
  search: (what, found) => say("chat.tool.search", { what, found }),
  count: (what, found) => say("chat.tool.count", { what, found }),
  facet: (what, found) => say("chat.tool.facet", { what, found }),
  open: (what) => say("chat.tool.open", { what }),
};
/** What cites the picture that came with the question. */
const OF_PICTURE = /[[【［](?:(?:the |your )?(?:attached )?(?:image|picture|photo)|图片|图像|照片)[\]】］]/iu;

export function chatView() {
  const turns = [];
  let attached = null;
  let running = null;
  let selected = null;
  const shown = lightbox({ closed: () => {} });
  const list = h("ol", { class: "turns", "aria-label": say("chat.conversation") });
  const hero = h("div", { class: "hero" }, h("h2", {}, say("chat.title")), h("p", {}, say("chat.how")));
  const talk = h("div", { class: "talk", tabIndex: 0, role: "region", "aria-label": say("chat.conversation") }, hero, list);
  const question = h("textarea", { id: "question", rows: 1, maxLength: LONGEST, dir: "auto", placeholder: say("chat.ask"), "aria-label": say("chat.question") });
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", tabIndex: -1, "aria-hidden": "true" });
  const send = h("button", { class: "icon first", "aria-label": say("chat.send"), title: say("chat.send") });
  const shelf = h("div", { class: "attached", hidden: true });
  const composer = h("form", { class: "composer" }, shelf,
    h("div", { class: "box" }, iconButton("picture", say("chat.attach"), () => file.click(), { class: "plain" }), file, question, send));
  const fresh = button(say("chat.new"), clear, { class: "small", hidden: true });
  const sources = h("aside", { class: "sources", "aria-label": say("chat.sources") });
  const element = h("div", { class: "chat" }, h("h1", { class: "unseen" }, say("view.chat")), talk, composer, sources);

  file.addEventListener("change", () => { if (file.files.length) attach(file.files[0]); file.value = ""; });
  takePictures(() => document.body.dataset.view === "chat", attach);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
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
    shelf.replaceChildren(...(kept ? [h("img", { src: URL.createObjectURL(kept.blob), alt: say("chat.attached") }), iconButton("close", say("chat.detach"), () => attach(null))] : []));
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
    const turn = { ...asked, evidence: [], tools: [], answer: null, error: null, stopped: false, text: "", note: "" };
    await answer(turn, await place(turn));
  }

  /** Add a turn at the end; gives the picture that was asked with. */
  async function place(turn) {
    turns.push(turn);
    const kept = turn.picture && await keptPicture(turn.picture);
    turn.body = h("div", { class: "answer" });
    list.append(
      h("li", { class: "asked", dir: "auto" }, kept ? h("img", { src: URL.createObjectURL(kept.blob), alt: say("chat.attached") }) : null, turn.question),
      h("li", {}, turn.body));
    return kept;
  }

  /** Take up the conversation that `keep` has kept when the page was loaded anew. */
  async function resume() {
    let kept = [];
    try {
      kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
      sessionStorage.removeItem(KEPT);
    } catch { /* then it begins anew */ }
    for (const turn of kept) {
      await place(turn);
      drawTurn(turn);
    }
    if (kept.length) select(turns.at(-1));
    draw();
  }

  async function answer(turn, kept) {
    const controller = new AbortController();
    running = controller;
    Object.assign(turn, { evidence: [], tools: [], answer: null, error: null, stopped: false, text: "", note: say("chat.searching") });
    select(turn);
    draw();
    drawTurn(turn);
    talk.scrollTop = talk.scrollHeight;
    announce(say("chat.searching"));
    const json = { question: turn.question, history: turn.history };
    const collection = params().get("collection");
    try {
      if (kept) json.image = await base64(kept.blob);
      const path = collection ? `/v1/chat?collection=${encodeURIComponent(collection)}` : "/v1/chat";
      for await (const { event, data } of events(path, { method: "POST", json, signal: controller.signal })) take(turn, event, data);
      if (!turn.answer && !turn.error) throw new Failure(0, "chat.broken");
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
    announce(turn.answer ? turn.answer.answer : turn.stopped ? say("chat.stopped") : `${leadOf(turn.error)} ${turn.error.message}`);
  }

  function take(turn, event, data) {
    const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
    if (event === "evidence") {
      turn.evidence = data.evidence;
      turn.note = data.evidence.length ? say("chat.reading", { n: data.evidence.length }) : say("chat.none");
      if (selected === turn) drawSources();
    } else if (event === "tool") {
      const { evidence, ...tool } = data;
      turn.tools.push(tool);
      const known = new Set(turn.evidence.map((each) => each.number));
      turn.evidence.push(...evidence.filter((each) => !known.has(each.number)));
      turn.note = say("chat.reading", { n: turn.evidence.length });
      if (selected === turn) drawSources();
    } else if (event === "token") turn.text += data.text;
    else if (event === "retrying") turn.note = say("chat.waiting", { time: duration(Math.ceil(data.wait_s)), reason: data.reason });
    else if (event === "final") {
      turn.answer = data;
      if (selected === turn) drawSources();
    }
    else if (event === "error") turn.error = data.detail ? new Refusal({ status: 500, ...data }) : new Failure(500, "chat.failed");
    drawTurn(turn);
    if (atEnd) talk.scrollTop = talk.scrollHeight;
  }

  function drawTurn(turn) {
    const parts = [];
    const { answer: checked } = turn;
    if (turn.tools?.length) parts.push(h("ul", { class: "looked soft" }, turn.tools.map((tool) => h("li", { dir: "auto" }, looked(tool)))));
    if (checked) parts.push(h("div", { class: "text", dir: "auto" }, cited(turn, checked.answer)));
    else if (turn.text) parts.push(h("div", { class: "text draft", dir: "auto" }, turn.text));
    if (turn.note && !turn.text && !checked) parts.push(h("p", { class: "soft" }, turn.note));
    if (turn.stopped) parts.push(h("p", { class: "soft" }, turn.text ? say("chat.stopped.draft") : say("chat.stopped")));
    if (turn.error) parts.push(failure(turn.error));
    const notes = checked ? remarks(checked) : [];
    if (notes.length) parts.push(h("p", { class: "soft" }, notes.join(say("list.sentences"))));
    if (checked || turn.error || turn.stopped) {
      parts.push(h("div", { class: "row" },
        button(say("chat.retry"), async () => { if (!running) answer(turn, turn.picture && await keptPicture(turn.picture)); }, { class: "small" }),
        turn.evidence.length ? button(say("chat.sources.count", { n: turn.evidence.length }), () => select(turn), { class: "small" }) : null));
    }
    turn.body.replaceChildren(...parts);
  }

  function looked({ name, query, filter, found, at_least: more, error }) {
    const asked = [query && (name === "open" ? query : `“${query}”`), filter].filter(Boolean).join(" ");
    const what = asked || say("chat.tool.all");
    if (error || !LOOKED[name]) return say("chat.tool.failed", { what });
    return LOOKED[name](what, more ? say("chat.tool.least", { n: found }) : say("chat.found", { n: found }));
  }

  function remarks({ refused, quoted, truncated, counts, check, notices }) {
    return [
      quoted && say("chat.quoted"),
      // What else was wrong with the model's sentences is no matter when none of them is shown.
      !quoted && truncated && say("chat.truncated"),
      ...(notices ?? []).map(noticeOf),
      check === "strict" && !refused && !quoted && counts?.unsupported > 0 && say("chat.unsupported", { n: counts.unsupported }),
    ].filter(Boolean);
  }

  /** The text with a button for each number that is a source's, and a mark behind each sentence that has one. */
  function cited(turn, text) {
    // Offsets count characters, which are not the units of a string.
    const characters = [...text];
    const { citations, sentences, check } = turn.answer;
    const places = citations.map(({ start, end, numbers }) => ({ start, end, put: () => numbers.map((number) => citation(turn, number)) }));
    if (check !== "strict") {
      for (const sentence of sentences) {
        if (sentence.end !== null && MARKS[sentence.verdict]) places.push({ start: sentence.end, end: sentence.end, put: () => [mark(sentence)] });
      }
    }
    for (const found of text.matchAll(new RegExp(OF_PICTURE, "giu"))) {
      const start = [...text.slice(0, found.index)].length;
      if (turn.picture) places.push({ start, end: start + [...found[0]].length, put: () => [h("span", { class: "cite" }, say("chat.picture"))] });
    }
    const nodes = [];
    let from = 0;
    for (const { start, end, put } of places.sort((one, other) => one.start - other.start)) {
      nodes.push(characters.slice(from, start).join(""), ...put());
      from = Math.max(from, end);
    }
    return [...nodes, characters.slice(from).join("")];
  }

  function citation(turn, number) {
    const source = turn.answer.sources.find((each) => each.number === number);
    if (!source) return `[${number}]`;
    const name = (source.caption ?? source.id).split("\n")[0];
    return button(`${number}`, () => openSource(turn, number), { class: "cite", title: name, "aria-label": say("chat.source", { number, name }) });
  }

  function mark({ verdict, conflict, conflict_source: source }) {
    const [kind, sign, told] = MARKS[verdict];
    const meaning = conflict ? say("chat.mark.contradicted.words", { source, words: conflict }) : told(source);
    const shown = kind === "conflict" ? h("small", {}, meaning) : null;
    return h("span", { class: `mark ${kind}`, title: meaning, role: "note", "aria-label": meaning }, sign, shown);
  }

  function select(turn) {
    selected = turn;
    drawSources();
  }

  function drawSources(lit = null) {
    const evidence = selected?.evidence ?? [];
    sources.hidden = !evidence.length;
    const used = new Set(selected?.answer?.sources.map((each) => each.number));
    sources.replaceChildren(h("h2", {}, say("chat.saw")),
      h("p", { class: "soft" }, selected?.answer ? say("chat.cited.count", { used: used.size, n: evidence.length }) : say("chat.found", { n: evidence.length })),
      h("ol", {}, evidence.map((each) => {
        const name = (each.caption ?? each.id).split("\n")[0];
        const thumb = each.image
          ? h("span", { class: "thumb" }, picture({ id: each.id, alt: "", width: 76, ratio: 1, collection: params().get("collection"), eager: true }))
          : h("span", { class: "thumb words" }, say("chat.text"));
        return h("li", { class: each.number === lit ? "lit" : "" }, button("", () => openSource(selected, each.number), {},
          thumb, h("span", { class: "name", dir: "auto" }, `[${each.number}] ${name}`),
          h("span", { class: "soft" }, [each.relevance === null ? "" : relevanceOf({ relevance: each.relevance, score: 0 }).text, used.has(each.number) ? say("chat.cited") : "", each.gone ? say("item.gone") : ""].filter(Boolean).join(" · "))));
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
      if (at < 0) throw new Failure(404, "chat.gone");
      shown.open(there, at, { of: collection });
    } catch (error) {
      sources.prepend(failure(error));
    }
  }

  function draw() {
    hero.hidden = turns.length > 0;
    fresh.hidden = !turns.length;
    if (!fresh.isConnected) composer.append(h("div", { class: "row" }, fresh));
    const label = running ? say("chat.stop") : say("chat.send");
    send.setAttribute("aria-label", label);
    send.title = label;
    send.replaceChildren(...iconButton(running ? "stop" : "send", label, () => {}).childNodes);
  }

  draw();
  drawSources();
  resume();
  return {
    element,
    /** Keep the conversation over one load of the page; an answer that is still coming is stopped. */
    keep() {
      running?.abort();
      const kept = turns.map(({ body: _, ...turn }) => ({ ...turn, error: null, note: "", stopped: !turn.answer }));
      try { sessionStorage.setItem(KEPT, JSON.stringify(kept)); } catch { /* then it is lost */ }
    },
    enter() { if (!matchMedia("(pointer: coarse)").matches) question.focus({ preventScroll: true }); },
    leave() { shown.shut(); },
  };
}
