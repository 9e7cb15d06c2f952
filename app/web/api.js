// Calls of the API: keys, problem documents, and streams of server-sent events.

import { keys } from "./keys.js";

/** A refusal or failure as a sentence; `status` is 0 where the service could not be reached. */
export class Failure extends Error {
  constructor(status, detail, retryAfter = null, type = "about:blank") {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
    this.type = type;
    this.title = status === 0 ? "The service cannot be reached. " : status === 503 ? "The service is busy or its database is away. " : undefined;
  }
}

/** The response of a call; asks for a key where one is needed. Throws `Failure`, or AbortError when it was stopped. */
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
      throw new Failure(0, "Is it still running, and this machine still connected?");
    }
    if (response.status === 401) {
      // Another call may have been given a new key since this one was sent.
      if (used === keys.current() && !(await keys.ask(used !== null))) throw new Failure(401, "An API key is needed.");
      continue;
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  let detail = response.statusText || `status ${response.status}`;
  let type;
  try {
    const body = await response.json();
    detail = body.detail ?? body.error?.message ?? detail;
    type = body.type;
  } catch { /* not one of ours */ }
  const after = Number(response.headers.get("Retry-After"));
  return new Failure(response.status, detail, Number.isFinite(after) && after > 0 ? after : null, type);
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
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw new Failure(0, "The connection broke while the answer was coming.");
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
