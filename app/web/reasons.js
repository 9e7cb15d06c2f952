// Why a search found nothing, and what to know of what it found: what the service says in English, in the page's language.

import { h } from "./dom.js";
import { say } from "./language.js";

const KIND = "(item|image|text)";
const REASONS = [
  [/^the collection is empty$/, () => say("nothing.empty")],
  [new RegExp(`^no ${KIND} matches the filter$`), ([, kind]) => say("nothing.filtered", { kind: say(`kind.${kind}`) })],
  [/^there are no (image|text)s in the collection$/, ([, kind]) => say("nothing.kind", { kind: say(`kinds.${kind}`) })],
  [/^there is no word in the query$/, () => say("nothing.wordless")],
  [new RegExp(`^no ${KIND} has any of these words$`), ([, kind]) => say("nothing.words", { kind: say(`kind.${kind}`) })],
  [new RegExp(`^no ${KIND} that matches the filter has any of these words$`), ([, kind]) => say("nothing.words.filtered", { kind: say(`kind.${kind}`) })],
  [new RegExp(`^there is no other ${KIND}$`), ([, kind]) => say("nothing.other", { kind: say(`kind.${kind}`) })],
  [new RegExp(`^there is no other ${KIND} that matches the filter$`), ([, kind]) => say("nothing.other.filtered", { kind: say(`kind.${kind}`) })],
  [/^nothing is relevant enough/, () => say("nothing.relevant")],
  [/^there is nothing from rank (\d+) on$/, ([, rank]) => say("nothing.rank", { rank: Number(rank) })],
  [/^nothing was found$/, () => say("nothing.found")],
];

/** A paragraph that tells the reason; one that the page does not know as the service says it. */
export function reasonOf(why) {
  for (const [pattern, told] of REASONS) {
    const found = pattern.exec(why);
    if (found) return h("p", {}, told(found));
  }
  return h("p", { lang: "en", dir: "auto" }, why[0].toUpperCase(), why.slice(1), ".");
}

const NOTICES = [
  [/^(.+) cannot read this query: only its words were searched$/, ([, encoder]) => say("notice.words", { encoder })],
  [/^(.+) cannot read this query: its relevance is not known$/, ([, encoder]) => say("notice.relevance", { encoder })],
  [/^(.+) cannot read the question: only its words were searched for$/, ([, encoder]) => say("notice.words", { encoder })],
  [/^(.+) cannot read the question: only its picture was searched for$/, ([, encoder]) => say("notice.picture", { encoder })],
  [/^the texts of collection '(.+)' were encoded by an earlier version of (.+): run sightline index /, ([, collection, encoder]) => say("notice.texts", { collection, encoder })],
];

/** A sentence that tells a notice; one that the page does not know as the service says it. */
export function noticeOf(notice) {
  for (const [pattern, told] of NOTICES) {
    const found = pattern.exec(notice);
    if (found) return told(found);
  }
  return `${notice}.`;
}
