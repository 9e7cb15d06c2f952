// The search view: what is asked, what was found, and what to do next.

import { call, withCollection } from "./api.js";
import { announce, button, failure, h, harmless, leadOf } from "./dom.js";
import { filterPanel } from "./filters.js";
import { tile, withArrows } from "./grid.js";
import { joined, number, say } from "./language.js";
import { lightbox, readItem } from "./lightbox.js";
import { fetchMeasured, keepPicture, takePictures } from "./pictures.js";
import { noticeOf, reasonOf } from "./reasons.js";
import { go, params } from "./router.js";
import { searchBox, tip } from "./searchbox.js";
import { isAlike, isEmpty, isGated, LAST_OFFSET, PAGE, readState, RELEVANT, requestBody, searchKey, writeState } from "./state.js";
import { fromWhere } from "./where.js";

const TYPING_MS = 180;
const UNREADABLE = "urn:sightline:unreadable-query";
const KEPT_LISTS = 12;

export function searchView() {
  let state = readState(params());
  let list = null;
  let working = null;
  let typing = 0;
  let typingHere = false;
  let showsFilters = matchMedia("(min-width: 1100px)").matches;
  const lists = new Map();
  const box = searchBox({
    typed: () => { clearTimeout(typing); typing = setTimeout(() => words(false), TYPING_MS); },
    sent: () => words(true),
    chosen: change, took, toFilters, toResults,
  });
  const panel = filterPanel({ changed: (where) => change({ where }), count });
  const status = h("p", { class: "status", tabIndex: -1 });
  const grid = h("ol", { class: "grid" });
  const message = h("div", { class: "message" });
  const end = h("div", { class: "end" });
  const results = h("section", { class: "results", "aria-label": say("search.results") }, status, message, grid, end);
  const hero = h("section", { class: "hero" });
  const element = h("div", { class: "search" }, h("h1", { class: "unseen" }, say("view.search")), box.element,
    h("div", { class: "columns" }, panel.element, results, hero));
  const shown = lightbox({
    closed: () => leaveItem(),
    moved: (hit) => go(writeState({ ...state, item: hit.id }), { replace: true }),
    more: (hit) => steer("like", hit), less: (hit) => steer("unlike", hit),
    further: async () => { await next(); return list?.hits; },
  });

  withArrows(grid);
  takePictures(() => document.body.dataset.view === "search", took);
  new IntersectionObserver((entries) => { if (entries.at(-1).isIntersecting) next(); }, { rootMargin: "800px" }).observe(end);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || document.body.dataset.view !== "search") return;
    if (event.target.matches("input:not([type=checkbox], [type=radio]), textarea, select") || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    box.words.focus();
    box.words.select();
  });

  /** Go to a changed search, without the item; another question begins with what is relevant only. */
  function change(changes, options = {}) {
    clearTimeout(typing);
    typingHere = false;
    const other = ["q", "picture", "like", "unlike", "collection"].some((name) => name in changes);
    const lost = other ? { all: false } : {};
    go(writeState({ ...state, q: box.words.value, item: null, ...lost, ...changes }), options);
  }

  /** One run of typing is one place in the history. */
  function words(sent) {
    clearTimeout(typing);
    if (box.isComposing()) return;
    const q = box.words.value.trim();
    if (q !== state.q) {
      const replace = typingHere;
      change({ q }, { replace });
      typingHere = !sent;
    } else if (sent) {
      typingHere = false;
      // Once more, as the collection may have changed.
      if (!working && !isEmpty(state)) run();
    }
  }

  async function took(file) {
    try {
      change({ picture: await keepPicture(file) });
    } catch (error) {
      complain(error);
    }
  }

  /** Tell of an error where it can be seen, which is not among the results as long as there is no search. */
  function complain(error) {
    hero.querySelector(".failed")?.remove();
    if (isEmpty(state)) hero.append(failure(error));
    else message.replaceChildren(failure(error));
  }

  function steer(name, hit) {
    const other = name === "like" ? "unlike" : "like";
    const kept = state[name].filter((id) => id !== hit.id);
    change({ [name]: [...kept, hit.id], [other]: state[other].filter((id) => id !== hit.id) });
    scrollTo({ top: 0 });
    announce(name === "like" ? say("steer.more") : say("steer.less"));
  }

  function toFilters() {
    showsFilters = !showsFilters;
    drawFilters();
  }

  function toResults() {
    grid.querySelector(".open")?.focus();
  }

  function open(hit) {
    go(writeState({ ...state, item: hit.id }), { state: { ours: true } });
  }

  function leaveItem() {
    // The place before is the search itself, if it was opened from there.
    if (history.state?.ours) history.back();
    else go(writeState({ ...state, item: null }), { replace: true });
  }

  async function count(fields, where, signal) {
    if (!fields.length || isEmpty(state)) return {};
    const { min_relevance: _, where: __, ...body } = await requestBody(state);
    const asked = { ...body, k: 1, facets: fields.slice(0, 16), ...(where ? { where } : {}) };
    return (await call(withCollection("/v1/search", state.collection), { method: "POST", json: asked, signal })).facets;
  }

  /** Leave the search that is under way. */
  function stop() {
    working?.abort();
    working = null;
    results.removeAttribute("aria-busy");
    element.classList.remove("working");
  }

  /** Begin the list of results that the state asks for, or show it again. */
  function run({ again = true } = {}) {
    stop();
    const key = searchKey(state);
    const kept = lists.get(key);
    if (!again && kept && !kept.error) {
      list = kept;
      draw();
      openItem();
      return;
    }
    list = { key, hits: [], ended: false, error: null, scroll: 0 };
    next({ first: true });
  }

  async function next({ first = false } = {}) {
    if (!list || list.ended || list.error || (working && !first) || (!first && !list.hits.length)) return;
    const [mine, controller] = [list, new AbortController()];
    working = controller;
    results.setAttribute("aria-busy", "true");
    if (first) element.classList.add("working");
    try {
      const body = { ...await requestBody(state), k: PAGE, offset: mine.hits.length };
      const { hits, nothing: why, notices } = await call(withCollection("/v1/search", state.collection), { method: "POST", json: body, signal: controller.signal });
      if (list !== mine) return;
      mine.hits.push(...hits);
      mine.why = why;
      mine.notices = notices;
      mine.ended = hits.length < PAGE || mine.hits.length >= LAST_OFFSET;
      panel.learn(hits);
      keep(mine);
    } catch (error) {
      if (error.name === "AbortError" || list !== mine) return;
      mine.error = error;
    } finally {
      if (working === controller) stop();
    }
    if (first) draw(); else drawMore();
    openItem();
  }

  function keep(mine) {
    lists.delete(mine.key);
    lists.set(mine.key, mine);
    if (lists.size > KEPT_LISTS) lists.delete(lists.keys().next().value);
  }

  function draw() {
    grid.replaceChildren();
    message.replaceChildren();
    drawMore();
    drawFilters();
  }

  function drawMore() {
    const from = grid.children.length;
    const alike = isAlike(state);
    const low = (hit) => !alike && hit.relevance !== null && hit.relevance < RELEVANT;
    grid.append(...list.hits.slice(from).map((hit) => tile(hit, {
      collection: state.collection, low: low(hit), alike, open, more: (each) => steer("like", each), less: (each) => steer("unlike", each),
    })));
    grid.hidden = !list.hits.length;
    fetchMeasured([...grid.children].slice(from).map((each) => each.querySelector("img")).filter(Boolean));
    const { hits, ended, error } = list;
    if (error?.type === UNREADABLE && !hits.length) message.replaceChildren(unreadable(error));
    else if (error && !hits.length) message.replaceChildren(failure(error, () => run()));
    else if (!hits.length) message.replaceChildren(nothing());
    else if (state.all && from === 0 && low(hits[0])) message.replaceChildren(h("p", { class: "notice" }, say("search.misses")));
    if (list.notices?.length && from === 0) message.append(h("p", { class: "notice" }, list.notices.map(noticeOf).join(" ")));
    status.textContent = hits.length ? harmless(told(hits, ended)) : "";
    announce(error ? `${leadOf(error)} ${error.message}` : status.textContent || message.textContent);
    const onward = () => { list.error = null; next(); };
    end.replaceChildren(...(!hits.length ? [] : error ? [failure(error, onward)] : ended ? [ending(hits)] : []));
    if (!ended && !error && end.getBoundingClientRect().top < innerHeight + 800) next();
  }

  /** What was pressed is gone with the results it stood for, so the focus goes to what is said of the new ones. */
  function showAll() {
    change({ all: true });
    status.focus({ preventScroll: true });
  }

  function told(hits, ended) {
    const parts = [state.q.trim() && say("search.words", { q: state.q.trim() }), state.picture && say("search.picture")].filter(Boolean);
    const items = state.like.length + state.unlike.length;
    if (items) parts.push(say("search.items", { n: items }));
    const found = { n: hits.length, many: `${number(hits.length)}${ended ? "" : "+"}`, what: joined(parts) };
    return isGated(state) ? say(`found.relevant.${state.find}`, found) : say(`found.${state.find}`, found);
  }

  function nothing() {
    const misses = button(say("search.misses.show"), showAll, { class: "first" });
    const clear = state.where ? button(say("search.unfilter"), () => change({ where: null })) : null;
    const told = isGated(state)
      ? [h("h2", {}, say("nothing.relevant")), h("p", {}, say("nothing.relevant.why"))]
      : [h("h2", {}, say("nothing.here")), list.why ? reasonOf(list.why) : null];
    return h("div", { class: "nothing" }, told, h("div", { class: "row" }, isGated(state) ? misses : null, clear));
  }

  /** What the encoder cannot read can still be looked for by its words. */
  function unreadable(error) {
    const keywords = button(say("search.keywords"), () => change({ mode: "keyword" }), { class: "first" });
    return h("div", { class: "nothing" }, h("h2", {}, leadOf(error)), h("p", { lang: "en", dir: "auto" }, error.message), h("div", { class: "row" }, keywords));
  }

  function ending(hits) {
    if (!isGated(state) || hits.length >= LAST_OFFSET) return h("p", { class: "soft" }, say("search.end"));
    return h("p", { class: "soft" }, say("search.end.relevant"), " ", button(say("search.all"), showAll));
  }

  function drawFilters() {
    const many = fromWhere(state.where)?.length ?? 1;
    const visible = showsFilters && !isEmpty(state);
    panel.element.hidden = !visible;
    box.showFilters(many, visible);
    panel.show(state.where, visible && list !== null);
  }

  /** Show the item that the address names, from the list or, for a link to it, by itself. */
  async function openItem() {
    if (!state.item) { shown.shut(); return; }
    if (shown.isOpen() && shown.current() === state.item) return;
    const at = list ? list.hits.findIndex((hit) => hit.id === state.item) : -1;
    if (at >= 0) { shown.open(list.hits, at, { of: state.collection }); return; }
    if (working) return;
    const wanted = state.item;
    try {
      const item = await readItem(wanted, state.collection);
      if (state.item === wanted) shown.open([item], 0, { of: state.collection });
    } catch (error) {
      complain(error);
    }
  }

  async function welcome() {
    hero.replaceChildren(
      h("h2", {}, say("welcome.title")),
      h("p", {}, say("welcome.how")),
      h("ul", { class: "tips" }, tip(["/"], say("keys.box")), tip(["←", "→", "↑", "↓"], say("keys.results")),
        tip(["Enter"], say("keys.open")), tip(["Esc"], say("keys.close"))));
    let collections;
    try { collections = await call("/v1/collections"); } catch (error) {
      hero.append(failure(error, welcome));
      return;
    }
    const usable = collections.filter((each) => each.searchable).sort((a, b) => b.default - a.default);
    box.offer(usable, state.collection);
    const current = usable.find((each) => (state.collection ? each.name === state.collection : each.default));
    const size = current?.count ?? 0;
    hero.append(size
      ? h("p", { class: "soft" }, say("welcome.size", { n: size, name: current.name }))
      : h("p", { class: "notice" }, say("welcome.none"), " ", h("a", { href: "/?view=index" }, say("welcome.index"))));
  }

  let welcomed = false;
  let here = false;
  return {
    element,
    leave() {
      shown.shut();
      clearTimeout(typing);
      if (list) list.scroll = scrollY;
      here = false;
      // What is indexed meanwhile changes what is said at the next visit.
      welcomed = false;
    },
    enter({ moved }) {
      const before = searchKey(state);
      const returned = !here;
      here = true;
      if (list && !returned) list.scroll = scrollY;
      const old = state;
      state = readState(params());
      if (moved) typingHere = false;
      if (old.collection !== state.collection) {
        panel.forget();
        welcomed = false;
      }
      // Closing an item goes back a little later: what was typed meanwhile stays.
      if (returned || searchKey(state) !== before) box.show(state);
      const empty = isEmpty(state);
      element.classList.toggle("empty", empty);
      hero.hidden = !empty;
      results.hidden = empty;
      if (!list) drawFilters();
      if (!welcomed) { welcomed = true; welcome(); }
      if (empty) {
        stop();
        list = null;
        drawFilters();
        openItem();
        if (!moved && !matchMedia("(pointer: coarse)").matches) box.words.focus({ preventScroll: true });
      } else if (searchKey(state) !== before || !list) {
        run({ again: !moved });
        scrollTo({ top: moved ? list.scroll : 0 });
      } else {
        if (returned) scrollTo({ top: list.scroll });
        openItem();
      }
    },
  };
}
