// The engines view: what this service works with, its collections, and which other engines are there.

import { call } from "./api.js";
import { button, failure, h } from "./dom.js";
import { bytes, number, rowOf, say, translated } from "./language.js";

export function enginesView() {
  const content = h("div", { "aria-live": "off" });
  const again = button(say("engines.again"), load, { class: "small" });
  const element = h("div", { class: "view" }, h("div", { class: "row between" }, h("h1", {}, say("view.engines")), again), content);

  async function load() {
    again.disabled = true;
    if (!content.children.length) content.replaceChildren(h("p", { class: "soft" }, say("engines.asking")));
    try {
      const told = await call("/v1/engines");
      content.replaceChildren(own(told.backend), h("h2", {}, say("engines.collections")), collections(told.collections), h("h2", {}, say("engines.all")), all(told));
    } catch (error) {
      content.replaceChildren(failure(error, load));
    } finally {
      again.disabled = false;
    }
  }

  function own({ scheme, summary, version, answers, can, capabilities }) {
    const facts = ["persistent", "server", "concurrent_writers", "keyword", "effort"];
    const others = can.filter((each) => !facts.includes(each.replaceAll(" ", "_"))).map((each) => translated("can", each));
    return h("section", { class: "card", "aria-label": say("engines.own") },
      h("div", { class: "row between" }, h("h2", {}, scheme ?? say("engines.own")), h("span", { class: `state ${answers ? "done" : "failed"}` }, answers ? say("state.answers") : say("state.does_not_answer"))),
      h("p", { lang: "en", dir: "auto" }, [summary, version].filter(Boolean).join(" · ")),
      h("ul", { class: "facts-list" }, facts.map((name) => h("li", { class: capabilities[name] ? "yes" : "no" },
        h("span", { "aria-hidden": "true" }, capabilities[name] ? "✓" : "–"), h("span", { class: "unseen" }, capabilities[name] ? say("engines.yes") : say("engines.no")), say(`fact.${name}`)))),
      h("p", { class: "soft" }, say("engines.more", { can: rowOf(others) || say("engines.none"), metrics: rowOf(capabilities.metrics) })));
  }

  const table = (label, heads, rows) => h("div", { class: "scroll card", tabIndex: 0, role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));

  const name = (one) => h("bdi", {}, one.name);

  function collections(found) {
    if (!found.length) return h("p", { class: "soft" }, say("engines.empty"));
    return table(say("engines.collections"), ["name", "items", "images", "vectors", "dimensions", "metric", "index", "encoder"].map((each) => say(`column.${each}`)), found.map((one) => h("tr", {},
      h("th", { scope: "row" }, one.searchable ? h("a", { href: one.default ? "/" : `/?collection=${encodeURIComponent(one.name)}` }, name(one)) : name(one),
        one.default ? h("span", { class: "soft" }, " ", say("engines.default")) : null),
      h("td", { class: "figure" }, number(one.count)), h("td", { class: "figure" }, number(one.images)), h("td", { class: "figure" }, bytes(one.vectors_bytes)),
      h("td", { class: "figure" }, number(one.dim)), h("td", {}, h("bdi", {}, one.metric)), h("td", {}, h("bdi", {}, one.index)),
      h("td", { title: one.encoder }, h("code", {}, one.encoder.split(":")[0]), one.searchable ? null : h("span", { class: "soft" }, " ", say("engines.foreign"))))));
  }

  function all({ engines, backend }) {
    const up = (engine) => engine.servers.find((server) => server.version) ?? engine.servers[0];
    const state = (engine) => {
      if (!engine.installed) return h("span", { class: "soft" }, say("engines.missing"));
      const server = up(engine);
      if (!server) return h("span", { class: "state done" }, engine.servers.length ? "" : say("engines.inside"));
      return h("span", { class: `state ${server.state === "answers" ? "done" : "queued"}` }, translated("state", server.state));
    };
    return table(say("engines.all"), ["engine", "state", "version", "can"].map((each) => say(`column.${each}`)), engines.map((engine) => h("tr", { class: engine.scheme === backend.scheme ? "used" : "" },
      h("th", { scope: "row" }, h("bdi", {}, engine.scheme), engine.scheme === backend.scheme ? h("span", { class: "soft" }, " ", say("engines.used")) : null, h("div", { class: "soft", lang: "en", dir: "auto" }, engine.summary)),
      h("td", {}, state(engine)),
      h("td", {}, engine.installed ? up(engine)?.version ?? engine.version ?? "" : h("code", {}, engine.install), engine.client ? h("div", { class: "soft" }, engine.client) : null),
      h("td", { class: "soft" }, rowOf(engine.can.map((each) => translated("can", each)))))));
  }

  return { element, enter: load };
}
