// What a search is, in the address and as a request.

import { base64, keptPicture } from "./pictures.js";
import { Failure } from "./api.js";

/** `RELEVANT` of retrieval.relevance.scorer; a test holds them together. */
export const RELEVANT = 0.8;
export const PAGE = 40;
export const LAST_OFFSET = 9800;
const AWAY = -0.5;
const MODALITIES = ["image", "text", "any"];
export const MODES = ["vector", "hybrid", "keyword"];

/** A search from the address; what is not understood is left out. */
export function readState(params) {
  const one = (name, allowed) => (allowed.includes(params.get(name)) ? params.get(name) : allowed[0]);
  let where = null;
  try {
    const parsed = JSON.parse(params.get("where") ?? "null");
    if (parsed && typeof parsed === "object" && !Array.isArray(parsed) && Object.keys(parsed).length) where = parsed;
  } catch { /* written by hand */ }
  return {
    q: params.get("q") ?? "",
    picture: params.get("picture"),
    like: params.getAll("like").filter(Boolean),
    unlike: params.getAll("unlike").filter(Boolean),
    find: one("find", MODALITIES),
    mode: one("mode", MODES),
    where,
    all: params.has("all"),
    collection: params.get("collection"),
    item: params.get("item"),
  };
}

/** The address of a search. */
export function writeState(state) {
  const params = new URLSearchParams();
  if (state.q.trim()) params.set("q", state.q.trim());
  if (state.picture) params.set("picture", state.picture);
  for (const id of state.like) params.append("like", id);
  for (const id of state.unlike) params.append("unlike", id);
  if (state.find !== MODALITIES[0]) params.set("find", state.find);
  if (state.mode !== MODES[0]) params.set("mode", state.mode);
  if (state.where) params.set("where", JSON.stringify(state.where));
  if (state.all) params.set("all", "1");
  if (state.collection) params.set("collection", state.collection);
  if (state.item) params.set("item", state.item);
  return params;
}

/** What tells one list of results from another: the search without the item that is looked at. */
export const searchKey = (state) => writeState({ ...state, item: null }).toString();

export const isEmpty = (state) => !state.q.trim() && !state.picture && !state.like.length && !state.unlike.length;

/** The body of a search request without its page. Throws `Failure` where the picture is not in this browser. */
export async function requestBody(state) {
  const terms = [];
  if (state.q.trim()) terms.push({ text: state.q.trim() });
  if (state.picture) {
    const kept = await keptPicture(state.picture);
    if (!kept) throw new Failure(404, "picture.elsewhere");
    terms.push({ image: await base64(kept.blob) });
  }
  terms.push(...state.like.map((item) => ({ item })), ...state.unlike.map((item) => ({ item, weight: AWAY })));
  const only = terms.length === 1 && !terms[0].item ? terms[0] : { terms };
  const body = { ...only, mode: wordless(state) ? "vector" : state.mode };
  if (state.find !== "any") body.modality = state.find;
  if (state.where) body.where = state.where;
  if (isGated(state)) body.min_relevance = RELEVANT;
  return body;
}

/**
 * Whether what is not relevant is left out; as at the command line, of searches by the meaning of words only. A picture
 * is judged by how the collection's own find each other, so that among look-alikes none stands out; keywords find
 * only what has them anyway.
 */
export const isGated = (state) => !state.all && state.mode !== "keyword" && !isAlike(state);

/** Whether it is searched by a picture or an item, so that results are alike rather than relevant. */
export const isAlike = (state) => Boolean(state.picture) || state.like.length + state.unlike.length > 0;

/** Whether there is no word to search by, which a search by keywords would refuse. */
export const wordless = (state) => !state.q.trim();
