// The panel of filters: facets to tick, conditions to build, and the JSON behind them.

import { button, h, iconButton } from "./dom.js";
import { number, say } from "./language.js";
import { checkField, fromWhere, inWords, operatorName, OPERATORS, toWhere, typedValue, typeOf } from "./where.js";

/** Fields that the indexer writes for itself and whose values tell nothing apart. */
const INTERNAL = new Set(["image", "content_hash", "bytes", "path", "places", "passage", "line", "width", "height", "file"]);
const MOST_FIELDS = 12;
const MOST_VALUES = 8;
const TICKED_NUMBERS = 8;

/** `changed(where)` is called with what the person asks for; `count(fields, where, signal)` gives facets by field. */
export function filterPanel({ changed, count }) {
  const types = new Map();
  let where = null;
  let asking = null;
  const facetBox = h("div", { class: "facets" });
  const chips = h("ul", { class: "chips", "aria-label": say("filters.conditions") });
  const problem = h("p", { class: "problem", role: "alert" });
  const names = h("datalist", { id: "filter-fields" });
  const field = h("input", { id: "filter-field", list: "filter-fields", autocomplete: "off", required: true, dir: "auto" });
  const operator = h("select", { id: "filter-op" }, OPERATORS.map((op) => h("option", { value: op }, operatorName(op))));
  const value = h("input", { id: "filter-value", autocomplete: "off", dir: "auto" });
  const builder = h("form", { class: "builder", on: { submit: add } },
    h("div", {}, h("label", { for: "filter-field" }, say("filters.field")), field),
    h("div", {}, h("label", { for: "filter-op" }, say("filters.condition")), operator),
    h("div", {}, h("label", { for: "filter-value" }, say("filters.value")), value),
    h("button", {}, say("filters.add")), names);
  const raw = h("textarea", { id: "filter-json", rows: 5, spellcheck: false, "aria-describedby": "filter-hint" });
  const rawProblem = h("p", { class: "problem", role: "alert" });
  const expert = h("details", {}, h("summary", {}, say("filters.json")),
    h("label", { for: "filter-json" }, say("filters.filter")), raw,
    h("p", { id: "filter-hint", class: "soft" }, say("filters.json.hint")),
    rawProblem, button(say("filters.apply"), apply));
  const clear = button(say("filters.clear"), () => changed(null), { class: "small", hidden: true });
  const element = h("aside", { class: "filters", id: "filters", "aria-label": say("filters.title") },
    h("div", { class: "row between" }, h("h2", {}, say("filters.title")), clear),
    facetBox, chips, h("h3", {}, say("filters.more")), builder, problem, expert);

  function add(event) {
    event.preventDefault();
    try {
      checkField(field.value.trim());
      const name = field.value.trim();
      const condition = { field: name, op: operator.value, value: typedValue(operator.value, value.value, types.get(name)) };
      const conditions = fromWhere(where);
      const mine = toWhere([condition]);
      problem.textContent = "";
      value.value = "";
      // What is no plain list of conditions is kept whole.
      changed(conditions ? toWhere([...conditions, condition]) : { $and: [where, mine] });
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  function apply() {
    rawProblem.textContent = "";
    try {
      const given = raw.value.trim() ? JSON.parse(raw.value) : null;
      if (given !== null && (typeof given !== "object" || Array.isArray(given))) throw new Error(say("filters.bad.object"));
      changed(given && Object.keys(given).length ? given : null);
    } catch (error) {
      rawProblem.textContent = say("filters.bad.json", { reason: error.message });
    }
  }

  const conditions = () => fromWhere(where) ?? [];

  function ticked(name) {
    const values = conditions().find((each) => each.field === name && each.op === "$in")?.value;
    return Array.isArray(values) ? values : [];
  }

  function tick(name, each, on) {
    const kept = ticked(name).filter((one) => one !== each);
    const values = on ? [...kept, each] : kept;
    const others = conditions().filter((one) => one.field !== name || one.op !== "$in");
    changed(toWhere(values.length ? [...others, { field: name, op: "$in", value: values }] : others));
  }

  function drawFacet(name, facet) {
    const chosen = ticked(name);
    const values = facet.values.slice(0, MOST_VALUES);
    if (types.get(name) === "number") values.sort((one, other) => one.value - other.value);
    const more = facet.values.length - values.length + facet.more;
    for (const each of chosen) if (!values.some((one) => one.value === each)) values.push({ value: each, count: 0 });
    return h("fieldset", {}, h("legend", { dir: "auto" }, name),
      values.map(({ value: each, count: many }) => h("label", { class: "tick" },
        h("input", { type: "checkbox", checked: chosen.includes(each), on: { change: (event) => tick(name, each, event.target.checked) } }),
        h("span", { class: "value", dir: "auto" }, String(each)), h("span", { class: "many" }, number(many)))),
      more > 0 ? h("p", { class: "soft" }, say("filters.rest", { n: more })) : null);
  }

  function drawRange(name) {
    const bound = (op) => conditions().find((each) => each.field === name && each.op === op)?.value;
    const box = (op, words) => h("input", {
      type: "number", step: "any", value: bound(op) ?? "", placeholder: words, "aria-label": say("filters.bound", { name, words }),
      on: { change: (event) => {
        const others = conditions().filter((each) => each.field !== name || each.op !== op);
        const given = event.target.value;
        changed(toWhere(given === "" ? others : [...others, { field: name, op, value: Number(given) }]));
      } },
    });
    return h("fieldset", { class: "range" }, h("legend", { dir: "auto" }, name),
      h("div", { class: "row" }, box("$gte", say("filters.from")), box("$lte", say("filters.to"))));
  }

  function worthIt(name, facet) {
    if (ticked(name).length) return true;
    if (facet.values.length + facet.more < 2) return false;
    return facet.values.some(({ count: many }) => many > 1) || facet.values.length <= 6;
  }

  async function drawFacets() {
    asking?.abort();
    const { signal } = asking = new AbortController();
    // Beyond what a list of conditions can say, ticks would throw the rest away.
    const names = fromWhere(where) === null ? [] : [...types.keys()].slice(0, MOST_FIELDS);
    if (!names.length) { facetBox.replaceChildren(); return; }
    let facets;
    const alone = names.filter((name) => ticked(name).length);
    try {
      // A ticked field is counted without its own ticks, or its other values could not be ticked too.
      const counted = await Promise.all([
        count(names.filter((name) => !alone.includes(name)), where, signal),
        ...alone.map((name) => count([name], withoutTicks(name), signal)),
      ]);
      facets = new Map(counted.flatMap((each) => Object.entries(each)));
    } catch { return; }
    if (signal.aborted) return;
    const focused = facetBox.contains(document.activeElement) ? document.activeElement.closest("label")?.textContent : null;
    facetBox.replaceChildren(...names.filter((name) => facets.has(name) && worthIt(name, facets.get(name))).map((name) =>
      types.get(name) === "number" && facets.get(name).values.length + facets.get(name).more > TICKED_NUMBERS
        ? drawRange(name) : drawFacet(name, facets.get(name))));
    if (focused) [...facetBox.querySelectorAll("label")].find((label) => sameTick(label.textContent, focused))?.querySelector("input").focus();
  }

  const withoutTicks = (name) => toWhere(conditions().filter((each) => each.field !== name || each.op !== "$in"));

  return {
    element,
    /** Learn which fields there are, and of what type, from what was found. */
    learn(hits) {
      const before = types.size;
      for (const hit of hits) {
        for (const [name, each] of Object.entries(hit.metadata)) if (!INTERNAL.has(name) && !types.has(name)) types.set(name, typeOf(each));
      }
      if (types.size !== before) names.replaceChildren(...[...types.keys()].map((name) => h("option", { value: name })));
    },
    forget: () => types.clear(),
    /** Show this filter; counts facets where the panel is to be seen. */
    show(given, visible) {
      where = given;
      const known = fromWhere(where);
      clear.hidden = where === null;
      chips.replaceChildren(...(known ?? []).map((condition) => h("li", {}, h("bdi", {}, inWords(condition)),
        iconButton("close", say("box.remove", { label: inWords(condition) }), () => changed(toWhere(known.filter((each) => each !== condition)))))));
      if (known === null) chips.replaceChildren(h("li", {}, say("filters.json.only")));
      if (document.activeElement !== raw) raw.value = where ? JSON.stringify(where, null, 2) : "";
      if (visible) drawFacets();
    },
  };
}

const sameTick = (label, other) => label.replace(/[\d,]+$/, "") === other.replace(/[\d,]+$/, "");
