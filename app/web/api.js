// Calls of the API: keys, problem documents, and streams of server-sent events.

import { keys } from "./keys.js";
import { isSaid, say } from "./language.js";

/** A refusal or failure that the page tells in its own words, the text of `key`; `status` is 0 where nobody answered. */
export class Failure extends Error {
  constructor(status, key, values) {
    super(say(key, values));
    this.status = status;
    this.isOurs = true;
    this.lead = status === 0 ? say("problem.away") : undefined;
  }
}

/** One that the service tells, by a problem document; `lead` says its kind, where the page knows it. */
export class Refusal extends Error {
  constructor({ status, type, detail }, retryAfter = null) {
    super(detail);
    this.status = status;
    this.type = type;
    this.retryAfter = retryAfter;
    // A document without a type of its own means what its status means.
    const kind = !type || type === "about:blank" ? status : type.split(/[/:#]/).at(-1).replaceAll("-", "_");
    this.lead = isSaid(`problem.${kind}`) ? say(`problem.${kind}`) : undefined;
  }
}

/** The response of a call; asks for a key where one is needed. Throws `Failure`, `Refusal`, or AbortError when it was stopped. */
export async function request(path, { method = "GET", json, form, signal, accept } = {}) {
  for (;;) {
    const used = keys.current();
    const headers = { ...keys.headers(), ...(accept ? { Accept: accept } : {}) };
    if (json !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: json === undefined ? form : JSON.stringify(json), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure(0, "problem.away.hint");
    }
    if (response.status === 401) {
      // Another call may have been given a new key since this one was sent.
      if (used === keys.current() && !(await keys.ask(used !== null))) throw new Failure(401, "key.needed");
      continue;
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  const { status, statusText } = response;
  let body = null;
  try { body = await response.json(); } catch { /* not one of ours */ }
  const detail = body?.detail ?? body?.error?.message ?? (statusText || String(status));
  const after = Number(response.headers.get("Retry-After"));
  return new Refusal({ status, type: body?.type, detail }, Number.isFinite(after) && after > 0 ? after : null);
}

/** The JSON that a call answers with, null where it has no content. */
export async function call(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** Server-sent events of a call, as `{event, data}` with data parsed from JSON; over fetch, which can send a key. */
export async function* events(path, options) {
  const response = await request(path, { accept: "text/event-stream", ...options });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest = (rest + value).replaceAll("\r\n", "\n");
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const found = parsed(rest.slice(0, end));
        rest = rest.slice(end + 2);
        if (found) yield found;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure || error instanceof Refusal) throw error;
    throw new Failure(0, "problem.broken");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [name, ...value] = line.split(":");
    const text = value.join(":").replace(/^ /, "");
    if (name === "event") event = text;
    if (name === "data") data.push(text);
  }
  if (!data.length || data.join("\n") === "[DONE]") return null;
  return { event, data: JSON.parse(data.join("\n")) };
}

/** The path of an item, or of what lies below it; its slashes are escaped too, as an id may end in /image. */
export function itemPath(id, { below = "", collection = null, ...query } = {}) {
  const params = new URLSearchParams(query);
  if (collection) params.set("collection", collection);
  const text = params.toString();
  return `/v1/items/${encodeURIComponent(id)}${below}${text ? `?${text}` : ""}`;
}

export const withCollection = (path, collection) =>
  collection ? `${path}?collection=${encodeURIComponent(collection)}` : path;
