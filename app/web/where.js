// Filters: a list of conditions that all hold, and the JSON that the API takes.

export const OPERATORS = [
  ["$eq", "is"], ["$ne", "is not"], ["$in", "is one of"], ["$nin", "is none of"], ["$gte", "at least"],
  ["$lte", "at most"], ["$gt", "more than"], ["$lt", "less than"], ["$contains", "has"], ["$exists", "is there"],
];
const KNOWN = new Set(OPERATORS.map(([operator]) => operator));
const LETTER = "\\p{L}\\p{Nl}";
// Letters and digits of any script, with the marks of letters, as `backends.filters.check_field_name` has it.
const FIELD = new RegExp(`^(?=.{1,64}$)(?:_|[${LETTER}]\\p{M}*)(?:[_\\p{Nd}]|[${LETTER}]\\p{M}*)*$`, "u");

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
  if (op === "$exists") return text.trim() !== "no";
  if (op === "$in" || op === "$nin") return text.split(",").map((part) => single(part.trim(), type));
  const value = single(text.trim(), type);
  if (["$gt", "$gte", "$lt", "$lte"].includes(op) && typeof value === "boolean") throw new Error("true and false have no order");
  return value;
}

function single(text, type) {
  if (!text) throw new Error("say a value");
  if (type === "string" || type === "list") return text;
  if (type === "boolean") {
    if (!["true", "false", "yes", "no"].includes(text.toLowerCase())) throw new Error("say true or false");
    return ["true", "yes"].includes(text.toLowerCase());
  }
  const value = Number(text);
  if (Number.isFinite(value)) return value;
  if (type === "number") throw new Error(`“${text}” is not a number`);
  if (text === "true" || text === "false") return text === "true";
  return text;
}

export function checkField(field) {
  if (!FIELD.test(field.normalize("NFC"))) throw new Error("a field's name is made of letters, digits and underscores");
}

export const typeOf = (value) => (Array.isArray(value) ? "list" : typeof value);

/** A condition in words. */
export function inWords({ field, op, value }) {
  const shown = Array.isArray(value) ? value.join(", ") : String(value);
  if (op === "$exists") return value ? `has ${field}` : `has no ${field}`;
  const word = OPERATORS.find(([operator]) => operator === op)[1];
  return `${field} ${word} ${shown}`;
}
