// Filters: a list of conditions that all hold, and the JSON that the API takes.

import { rowOf, say } from "./language.js";

export const OPERATORS = ["$eq", "$ne", "$in", "$nin", "$gte", "$lte", "$gt", "$lt", "$contains", "$exists"];
const KNOWN = new Set(OPERATORS);
const LETTER = "\\p{L}\\p{Nl}";
// Letters and digits of any script, with the marks of letters, as `backends.filters.check_field_name` has it.
const FIELD = new RegExp(`^(?=.{1,64}$)(?:_|[${LETTER}]\\p{M}*)(?:[_\\p{Nd}]|[${LETTER}]\\p{M}*)*$`, "u");

export const operatorName = (op) => say(`operator.${op.slice(1)}`);

/** The JSON of conditions `{field, op, value}`; null where there are none. */
export function toWhere(conditions) {
  // Without a prototype: a field may be called like what every object has.
  const groups = [Object.create(null)];
  for (const { field, op, value } of conditions) {
    // Two conditions of one field and operator need an object each.
    let group = groups.find((each) => !(op in (each[field] ?? {})));
    if (!group) groups.push(group = Object.create(null));
    group[field] = { ...group[field], [op]: value };
  }
  const used = groups.filter((group) => Object.keys(group).length);
  if (!used.length) return null;
  return used.length === 1 ? used[0] : { $and: used };
}

/** The conditions that a filter says, null where it says more than a list of them can. */
export function fromWhere(where) {
  if (!where) return [];
  if (typeof where !== "object" || Array.isArray(where)) return null;
  if (Object.hasOwn(where, "$and")) {
    if (Object.keys(where).length !== 1 || !Array.isArray(where.$and)) return null;
    const parts = where.$and.map(fromWhere);
    return parts.includes(null) ? null : parts.flat();
  }
  const conditions = [];
  for (const [field, said] of Object.entries(where)) {
    if (field.startsWith("$")) return null;
    const isObject = said !== null && typeof said === "object" && !Array.isArray(said);
    for (const [op, value] of isObject ? Object.entries(said) : [["$eq", said]]) {
      if (!KNOWN.has(op)) return null;
      conditions.push({ field, op, value });
    }
  }
  return conditions;
}

/** A value as it was typed, of the type that the field has; lists by commas. Throws Error saying what is wrong. */
export function typedValue(op, text, type) {
  if (op === "$exists") return !isWord("false", text.trim());
  if (op === "$in" || op === "$nin") return text.split(",").map((part) => single(part.trim(), type));
  const value = single(text.trim(), type);
  if (["$gt", "$gte", "$lt", "$lte"].includes(op) && typeof value === "boolean") throw new Error(say("filters.bad.order"));
  return value;
}

/** Whether a text is one of the words that people write for true or false. */
const isWord = (truth, text) => say(`filters.words.${truth}`).split(" ").includes(text.toLowerCase());

function single(text, type) {
  if (!text) throw new Error(say("filters.bad.value"));
  if (type === "string" || type === "list") return text;
  if (type === "boolean") {
    if (!isWord("true", text) && !isWord("false", text)) throw new Error(say("filters.bad.truth"));
    return isWord("true", text);
  }
  const value = Number(text);
  if (Number.isFinite(value)) return value;
  if (type === "number") throw new Error(say("filters.bad.number", { text }));
  if (text === "true" || text === "false") return text === "true";
  return text;
}

export function checkField(field) {
  if (!FIELD.test(field.normalize("NFC"))) throw new Error(say("filters.bad.field"));
}

export const typeOf = (value) => (Array.isArray(value) ? "list" : typeof value);

/** A condition in words. */
export function inWords({ field, op, value }) {
  const kind = op === "$exists" && !value ? "missing" : op.slice(1);
  return say(`condition.${kind}`, { field, value: Array.isArray(value) ? rowOf(value) : String(value) });
}
