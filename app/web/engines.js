// The engines view: what this service works with, its collections, and which other engines are there.

import { call } from "./api.js";
import { button, bytes, failure, h, number } from "./dom.js";

export function enginesView() {
  const content = h("div", { "aria-live": "off" });
  const again = button("Look again", load, { class: "small" });
  const element = h("div", { class: "view" }, h("div", { class: "row between" }, h("h1", {}, "Engines"), again), content);

  async function load() {
    again.disabled = true;
    if (!content.children.length) content.replaceChildren(h("p", { class: "soft" }, "Asking the engines…"));
    try {
      const told = await call("/v1/engines");
      content.replaceChildren(own(told.backend), h("h2", {}, "Collections"), collections(told.collections), h("h2", {}, "All engines"), all(told));
    } catch (error) {
      content.replaceChildren(failure(error, load));
    } finally {
      again.disabled = false;
    }
  }

  function own({ scheme, summary, version, answers, can, capabilities }) {
    const facts = [["persistent", "keeps what is stored"], ["server", "is a process of its own"], ["concurrent_writers", "takes several writers"],
      ["keyword", "searches by keywords"], ["effort", "trades recall for speed"]];
    return h("section", { class: "card", "aria-label": "This service's engine" },
      h("div", { class: "row between" }, h("h2", {}, scheme ?? "This service's engine"), h("span", { class: `state ${answers ? "done" : "failed"}` }, answers ? "answers" : "does not answer")),
      h("p", {}, [summary, version].filter(Boolean).join(" · ")),
      h("ul", { class: "facts-list" }, facts.map(([name, words]) => h("li", { class: capabilities[name] ? "yes" : "no" },
        h("span", { "aria-hidden": "true" }, capabilities[name] ? "✓" : "–"), h("span", { class: "unseen" }, capabilities[name] ? "yes: " : "no: "), words))),
      h("p", { class: "soft" }, `Indexes and more: ${can.filter((each) => !facts.some(([name]) => name.replaceAll("_", " ") === each)).join(", ") || "none"}. Metrics: ${capabilities.metrics.join(", ")}.`));
  }

  const table = (label, heads, rows) => h("div", { class: "scroll card", tabIndex: 0, role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));

  function collections(found) {
    if (!found.length) return h("p", { class: "soft" }, "There is no collection.");
    return table("Collections", ["Name", "Items", "Images", "Vectors", "Dimensions", "Metric", "Index", "Encoder"], found.map((one) => h("tr", {},
      h("th", { scope: "row" }, one.searchable ? h("a", { href: one.default ? "/" : `/?collection=${encodeURIComponent(one.name)}` }, one.name) : one.name,
        one.default ? h("span", { class: "soft" }, " default") : null),
      h("td", { class: "figure" }, number(one.count)), h("td", { class: "figure" }, number(one.images)), h("td", { class: "figure" }, bytes(one.vectors_bytes)),
      h("td", { class: "figure" }, number(one.dim)), h("td", {}, one.metric), h("td", {}, one.index),
      h("td", { title: one.encoder }, h("code", {}, one.encoder.split(":")[0]), one.searchable ? null : h("span", { class: "soft" }, " another one than this service's")))));
  }

  function all({ engines, backend }) {
    const up = (engine) => engine.servers.find((server) => server.version) ?? engine.servers[0];
    const state = (engine) => {
      if (!engine.installed) return h("span", { class: "soft" }, "not installed");
      const server = up(engine);
      if (!server) return h("span", { class: "state done" }, engine.servers.length ? "" : "in process");
      return h("span", { class: `state ${server.state === "answers" ? "done" : "queued"}` }, server.state);
    };
    return table("All engines", ["Engine", "State", "Version", "Can"], engines.map((engine) => h("tr", { class: engine.scheme === backend.scheme ? "used" : "" },
      h("th", { scope: "row" }, engine.scheme, engine.scheme === backend.scheme ? h("span", { class: "soft" }, " in use") : null, h("div", { class: "soft" }, engine.summary)),
      h("td", {}, state(engine)),
      h("td", {}, engine.installed ? up(engine)?.version ?? engine.version ?? "" : h("code", {}, engine.install), engine.client ? h("div", { class: "soft" }, engine.client) : null),
      h("td", { class: "soft" }, engine.can.join(", ")))));
  }

  return { element, enter: load };
}
