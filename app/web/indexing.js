// The index view: start a job over an allowed folder, watch it, cancel it, and see what was skipped and why.

import { call, events } from "./api.js";
import { announce, button, failure, h } from "./dom.js";
import { date, duration, number, say, sayWith, translated } from "./language.js";

const ENDED = ["done", "failed", "cancelled"];
const LISTED = 20;
const COUNTS = ["found", "indexed", "unchanged", "renamed", "duplicates", "updated", "pruned", "missing", "ignored", "reencoded"];

export function indexView() {
  const watched = new Map();
  const form = h("div");
  const list = h("ul", { class: "jobs" });
  const problem = h("div");
  const element = h("div", { class: "view" },
    h("h1", {}, say("view.index")), h("p", { class: "soft" }, say("index.what")),
    form, problem, h("h2", { id: "jobs-title" }, say("index.jobs")), list);
  list.setAttribute("aria-labelledby", "jobs-title");

  async function load() {
    problem.replaceChildren();
    try {
      const [{ folders }, { jobs }, collections] = await Promise.all([call("/v1/index"), call("/v1/jobs"), call("/v1/collections")]);
      drawForm(folders, collections);
      list.replaceChildren(...jobs.slice(0, LISTED).map((job) => jobItem(job)));
      if (!jobs.length) list.replaceChildren(h("li", { class: "soft" }, say("index.jobs.none")));
      for (const job of jobs.slice(0, LISTED)) if (!ENDED.includes(job.state)) watch(job.id);
    } catch (error) {
      problem.replaceChildren(failure(error, load));
    }
  }

  function drawForm(folders, collections) {
    if (!folders.length) {
      form.replaceChildren(h("p", { class: "notice" },
        sayWith("index.folders.none", { flag: h("code", {}, "--root DIR"), command: h("code", {}, "sightline index DIR") })));
      return;
    }
    const folder = h("select", { id: "folder" }, folders.map((each) => h("option", {}, each)));
    const below = h("input", { id: "below", placeholder: say("index.below.all"), autocomplete: "off", spellcheck: false });
    const own = collections.find((each) => each.default)?.name;
    const collection = h("input", { id: "into", autocomplete: "off", list: "collections", placeholder: own ?? say("index.into.own"), pattern: "[A-Za-z][A-Za-z0-9_\\-]{0,62}" });
    const prune = h("input", { type: "checkbox", id: "prune" });
    const field = (name, label, input) => h("div", {}, h("label", { for: name }, label), input);
    const started = async (event) => {
      event.preventDefault();
      problem.replaceChildren();
      const inside = below.value.trim().replace(/^\/+/, "");
      const json = { folder: inside ? `${folder.value.replace(/\/+$/, "")}/${inside}` : folder.value, prune: prune.checked };
      if (collection.value.trim()) json.collection = collection.value.trim();
      try {
        const job = await call("/v1/index", { method: "POST", json });
        list.querySelector(":scope > .soft")?.remove();
        list.prepend(jobItem(job, true));
        announce(say("index.started"));
        watch(job.id);
      } catch (error) {
        problem.replaceChildren(failure(error));
      }
    };
    form.replaceChildren(h("form", { class: "card fields", on: { submit: started } },
      field("folder", say("index.folder"), folder), field("below", say("index.below"), below), field("into", say("index.into"), collection),
      h("datalist", { id: "collections" }, collections.filter((each) => each.searchable).map(({ name }) => h("option", { value: name }))),
      h("div", { class: "row" }, h("button", { class: "first" }, say("index.start")),
        h("label", { class: "tick" }, prune, say("index.prune")))));
  }

  function jobItem(job, open = false) {
    const item = h("li", { class: "card", data: { job: job.id } });
    drawJob(item, job, open);
    return item;
  }

  function itemOf(id) {
    return list.querySelector(`[data-job="${CSS.escape(id)}"]`);
  }

  function drawJob(item, job, open = item.querySelector("details")?.open ?? false) {
    const { progress, report } = job;
    const running = !ENDED.includes(job.state);
    const parts = [h("div", { class: "row between" },
      h("div", { class: "folder" }, h("strong", { dir: "auto" }, job.folder), h("span", { class: "soft" }, " ", say("index.job", { collection: job.collection, date: date(job.created_s) }))),
      h("span", { class: `state ${job.state}` }, say(`job.${job.state}`)))];
    if (running) {
      const bar = h("progress", { "aria-label": say("index.progress", { folder: job.folder }) });
      if (progress?.total) { bar.max = progress.total; bar.value = progress.done; }
      parts.push(bar, h("div", { class: "row between" }, h("span", { class: "soft" }, told(job)), cancelButton(job)));
    }
    if (job.error) parts.push(h("p", { class: "problem", lang: "en", dir: "auto" }, job.error));
    if (report) {
      parts.push(h("p", { class: "counts" }, COUNTS.filter((name) => report[name]).map((name) => h("span", {}, sayWith(`count.${name}`, { n: report[name], many: h("strong", {}, number(report[name])) })))));
      if (report.unreadable) parts.push(h("p", { class: "notice" }, say("index.unreadable", { n: report.unreadable })));
      if (report.quarantined_count) parts.push(skipped(item, job, open));
      if (report.not_read?.length) parts.push(notRead(job));
    }
    const had = item.contains(document.activeElement) && document.activeElement.tagName;
    item.replaceChildren(...parts);
    if (had) item.querySelector(had.toLowerCase())?.focus();
  }

  function told({ state, progress }) {
    if (state === "queued" || !progress) return state === "queued" ? say("progress.queued") : say("progress.begins");
    const { stage, done, total, rate_per_s: rate, remaining_s: left, quarantined } = progress;
    return [
      translated("stage", stage),
      total === null ? say("progress.done", { n: done }) : say("progress.of", { done, total }),
      rate > 0 && say("progress.rate", { rate: number(rate, 1) }),
      left && say("progress.left", { time: duration(left) }),
      quarantined > 0 && say("index.skipped", { n: quarantined }),
    ].filter(Boolean).join(" · ");
  }

  function cancelButton(job) {
    return button(say("index.cancel"), async (event) => {
      event.currentTarget.disabled = true;
      try { await call(`/v1/jobs/${job.id}`, { method: "DELETE" }); } catch (error) { problem.replaceChildren(failure(error)); }
    }, { class: "small", "aria-label": say("index.cancel.of", { folder: job.folder }) });
  }

  /** What was skipped; the list of jobs has only its number, so the rows are read when they are wanted. */
  function skipped(item, job, open) {
    const rows = h("tbody");
    const fill = (all) => rows.replaceChildren(...all.map(({ path, reason }) => h("tr", {}, h("td", {}, h("code", { dir: "auto" }, path)), h("td", { lang: "en", dir: "auto" }, reason))));
    const node = h("details", { open }, h("summary", {}, say("index.skipped", { n: job.report.quarantined_count })),
      h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": say("index.skipped.files") },
        h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, say("column.file")), h("th", { scope: "col" }, say("column.why")))), rows)));
    if (job.report.quarantined.length) fill(job.report.quarantined);
    else {
      const read = async () => {
        if (!node.open || rows.children.length) return;
        try { fill((await call(`/v1/jobs/${job.id}`)).report.quarantined); } catch (error) { node.append(failure(error)); }
      };
      node.addEventListener("toggle", read);
    }
    return node;
  }

  /** The kinds of files that were not read, each with the paths of some, which are read when they are wanted. */
  function notRead(job) {
    const kinds = h("ul");
    const fill = (all) => kinds.replaceChildren(...all.map(({ told, paths }) => h("li", {}, h("details", {}, h("summary", { lang: "en", dir: "auto" }, told), h("ul", {}, ...paths.map((path) => h("li", {}, h("code", { dir: "auto" }, path))))))));
    const all = job.report.not_read;
    const node = h("details", {}, h("summary", {}, say("index.unread", { n: all.reduce((sum, { count }) => sum + count, 0) })), kinds);
    fill(all);
    node.addEventListener("toggle", async () => {
      if (!node.open || all.some(({ paths }) => paths.length)) return;
      try { fill((await call(`/v1/jobs/${job.id}`)).report.not_read); } catch (error) { node.append(failure(error)); }
    });
    return node;
  }

  async function watch(id) {
    if (watched.has(id)) return;
    const controller = new AbortController();
    watched.set(id, controller);
    try {
      for await (const { data } of events(`/v1/jobs/${id}/events`, { signal: controller.signal })) {
        const item = itemOf(id);
        if (!item) return;
        drawJob(item, data, data.report?.quarantined_count > 0 || undefined);
        if (ENDED.includes(data.state)) announce(say("index.ended", { folder: data.folder, state: say(`job.${data.state}`) }));
      }
    } catch (error) {
      if (error.name !== "AbortError") problem.replaceChildren(failure(error, load));
    } finally {
      watched.delete(id);
    }
  }

  return {
    element,
    enter: load,
    leave() { for (const controller of watched.values()) controller.abort(); },
  };
}
