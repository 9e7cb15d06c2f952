// The page's language: its texts by key, and numbers, dates, lists and sizes as they are written in it.
// Which language it is, early.js has decided; a text that speaks of a number has a form for each class of plural.

const tag = document.documentElement.lang;
const strings = (await import(`./strings.${tag.slice(0, 2)}.js`)).default;
const plural = new Intl.PluralRules(tag);
const HOLE = /\{(\w+)\}/;
const KEPT = "sightline-language";

/** A number with the language's separators; `digits` after the point, if that many are to be shown. */
export const number = (value, digits = null) =>
  value.toLocaleString(tag, digits === null ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A share of one in whole percent, never more than it is. */
export const percent = (share) => (Math.floor(100 * share) / 100).toLocaleString(tag, { style: "percent" });

/** The point in time that is `seconds` after 1970, where the reader is. */
export const date = (seconds) => new Date(1000 * seconds).toLocaleString(tag, { dateStyle: "medium", timeStyle: "short" });

export const isSaid = (key) => Object.hasOwn(strings, key);

/** The text of a key as its parts, with `values` in its holes: numbers as they are written, all else as it is. */
export function sayWith(key, values = {}) {
  const found = strings[key];
  const text = typeof found === "string" ? found : found[plural.select(values.n)];
  return text.split(HOLE).map((part, index) => {
    if (index % 2 === 0) return part;
    return typeof values[part] === "number" ? number(values[part]) : values[part];
  });
}

/** The text of a key, with `values` in its holes; `n` decides on the plural. */
export const say = (key, values) => sayWith(key, values).join("");

/** What the service says in a word or two of its own, such as a state, in the page's language where that has it. */
export function translated(area, told) {
  const key = `${area}.${told.replace(/\W+/g, "_")}`;
  return isSaid(key) ? say(key) : told;
}

/** Several things as one phrase: “a, b and c”. */
export function joined(items) {
  const parts = new Intl.ListFormat(tag, { type: "conjunction" }).formatToParts(items);
  const narrow = (text) => /^[\w.]$/.test(text ?? "");
  return parts.map(({ type, value }, index) => {
    // Chinese sets a space between its own characters and letters or digits; between those it stands anyway.
    if (type === "element" || /^\s|\s$|\p{P}/u.test(value)) return value;
    return `${narrow(parts[index - 1]?.value.at(-1)) ? " " : ""}${value}${narrow(parts[index + 1]?.value[0]) ? " " : ""}`;
  }).join("");
}

/** Values side by side, as a list of data has them. */
export const rowOf = (items) => items.join(say("list.separator"));

const UNITS = ["KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  if (value < 1024) return say("size.bytes", { n: Math.round(value) });
  let unit = -1;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${number(value, value < 10 ? 1 : 0)} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < 90) return say("time.seconds", { n: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return say("time.minutes", { n: Math.round(seconds / 60) });
  return say("time.hours", { n: seconds / 3600, hours: number(seconds / 3600, 1) });
}

/** Let the button go over to the other language; `leaving` keeps what would be lost. */
export function languageSwitch(button, leaving) {
  const other = tag === "en" ? "zh-CN" : "en";
  const name = document.createElement("span");
  name.lang = other;
  name.textContent = say("language.other");
  button.replaceChildren(name);
  button.title = say("language.switch");
  button.addEventListener("click", () => {
    try { localStorage.setItem(KEPT, other.slice(0, 2)); } catch { return; /* then the browser's language stays */ }
    leaving();
    location.reload();
  });
}
