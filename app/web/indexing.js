// The index view: start a job over an allowed folder, watch it, cancel it, and see what was skipped and why.

import { call, events } from "./api.js";
import { announce, button, duration, failure, h, number } from "./dom.js";

const ENDED = ["done", "failed", "cancelled"];
const LISTED = 20;
const STATES = { __proto__: null, queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };
const COUNTS = ["found", "indexed", "unchanged", "renamed", "duplicates", "updated", "pruned", "missing", "ignored", "reencoded"];

export function indexView() {
  const watched = new Map();
  const form = h("div");
  const list = h("ul", { class: "jobs" });
  const problem = h("div");
  const element = h("div", { class: "view" },
    h("h1", {}, "Index"), h("p", { class: "soft" }, "Bring a collection up to date with a folder on the server. What is unchanged is not embedded again."),
    form, problem, h("h2", { id: "jobs-title" }, "Jobs"), list);
  list.setAttribute("aria-labelledby", "jobs-title");

  async function load() {
    problem.replaceChildren();
    try {
      const [{ folders }, { jobs }, collections] = await Promise.all([call("/v1/index"), call("/v1/jobs"), call("/v1/collections")]);
      drawForm(folders, collections);
      list.replaceChildren(...jobs.slice(0, LISTED).map((job) => jobItem(job)));
      if (!jobs.length) list.replaceChildren(h("li", { class: "soft" }, "No job has run yet."));
      for (const job of jobs.slice(0, LISTED)) if (!ENDED.includes(job.state)) watch(job.id);
    } catch (error) {
      problem.replaceChildren(failure(error, load));
    }
  }

  function drawForm(folders, collections) {
    if (!folders.length) {
      form.replaceChildren(h("p", { class: "notice" }, "No folder may be indexed from here. Start the service with ", h("code", {}, "--root DIR"),
        ", or run ", h("code", {}, "sightline index DIR"), " once."));
      return;
    }
    const folder = h("select", { id: "folder" }, folders.map((each) => h("option", {}, each)));
    const below = h("input", { id: "below", placeholder: "all of it", autocomplete: "off", spellcheck: false });
    const own = collections.find((each) => each.default)?.name;
    const collection = h("input", { id: "into", autocomplete: "off", list: "collections", placeholder: own ?? "the service's own", pattern: "[A-Za-z][A-Za-z0-9_\\-]{0,62}" });
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
        announce("The job was started");
        watch(job.id);
      } catch (error) {
        problem.replaceChildren(failure(error));
      }
    };
    form.replaceChildren(h("form", { class: "card fields", on: { submit: started } },
      field("folder", "Folder", folder), field("below", "Only below", below), field("into", "Collection", collection),
      h("datalist", { id: "collections" }, collections.filter((each) => each.searchable).map(({ name }) => h("option", { value: name }))),
      h("div", { class: "row" }, h("button", { class: "first" }, "Start"),
        h("label", { class: "tick" }, prune, "Remove items whose file has gone"))));
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
      h("div", { class: "folder" }, h("strong", {}, job.folder), h("span", { class: "soft" }, ` into “${job.collection}” · ${new Date(1000 * job.created_s).toLocaleString()}`)),
      h("span", { class: `state ${job.state}` }, STATES[job.state]))];
    if (running) {
      const bar = h("progress", { "aria-label": `Progress of ${job.folder}` });
      if (progress?.total) { bar.max = progress.total; bar.value = progress.done; }
      parts.push(bar, h("div", { class: "row between" }, h("span", { class: "soft" }, told(job)), cancelButton(job)));
    }
    if (job.error) parts.push(h("p", { class: "problem" }, job.error));
    if (report) {
      parts.push(h("p", { class: "counts" }, COUNTS.filter((name) => report[name]).map((name) => h("span", {}, h("strong", {}, number(report[name])), ` ${name}`))));
      if (report.unreadable) parts.push(h("p", { class: "notice" }, `${number(report.unreadable)} text${report.unreadable === 1 ? "" : "s"} cannot be read by the encoder: stored for keyword search alone.`));
      if (report.quarantined_count) parts.push(skipped(item, job, open));
    }
    const had = item.contains(document.activeElement) && document.activeElement.tagName;
    item.replaceChildren(...parts);
    if (had) item.querySelector(had.toLowerCase())?.focus();
  }

  function told({ state, progress }) {
    if (state === "queued" || !progress) return state === "queued" ? "waits for its turn" : "begins";
    const many = progress.total === null ? `${number(progress.done)} so far` : `${number(progress.done)} of ${number(progress.total)}`;
    const rate = progress.rate_per_s > 0 ? ` · ${progress.rate_per_s.toFixed(1)} a second` : "";
    const left = progress.remaining_s ? ` · ${duration(progress.remaining_s)} to go` : "";
    const skips = progress.quarantined ? ` · ${number(progress.quarantined)} skipped` : "";
    return `${progress.stage} · ${many}${rate}${left}${skips}`;
  }

  function cancelButton(job) {
    return button("Cancel", async (event) => {
      event.currentTarget.disabled = true;
      try { await call(`/v1/jobs/${job.id}`, { method: "DELETE" }); } catch (error) { problem.replaceChildren(failure(error)); }
    }, { class: "small", "aria-label": `Cancel the job over ${job.folder}` });
  }

  /** What was skipped; the list of jobs has only its number, so the rows are read when they are wanted. */
  function skipped(item, job, open) {
    const rows = h("tbody");
    const fill = (all) => rows.replaceChildren(...all.map(({ path, reason }) => h("tr", {}, h("td", {}, h("code", {}, path)), h("td", {}, reason))));
    const node = h("details", { open }, h("summary", {}, `${number(job.report.quarantined_count)} skipped`),
      h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Files that were skipped" },
        h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "File"), h("th", { scope: "col" }, "Why"))), rows)));
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

  async function watch(id) {
    if (watched.has(id)) return;
    const controller = new AbortController();
    watched.set(id, controller);
    try {
      for await (const { data } of events(`/v1/jobs/${id}/events`, { signal: controller.signal })) {
        const item = itemOf(id);
        if (!item) return;
        drawJob(item, data, data.report?.quarantined_count > 0 || undefined);
        if (ENDED.includes(data.state)) announce(`The job over ${data.folder} is ${STATES[data.state]}`);
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
